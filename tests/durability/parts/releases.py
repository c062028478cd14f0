"""Publishers, rollbacks and promotions at once, killed at any moment."""

from __future__ import annotations

from pathlib import Path

from tests.durability.history import history

SECONDS = 60.0


def measure(folder: Path) -> dict[str, int]:
    """Lets them work for a minute."""
    found = history(SECONDS, processes=6)
    return {"moves": found.acknowledged, "kills": found.kills, "lost": found.lost, "twice": found.twice}
