"""Collectors and databases killed while events arrive, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from tests.durability import collector_kills
from tests.monitoring import servers

EVENTS, KILLS = 50_000, 4  # on either store


def measure(folder: Path) -> dict[str, int]:
    """Sends the events to one store after the other."""
    total = collector_kills.run(folder, f"sqlite:///{folder}/kills.db", None, events=EVENTS, kills=KILLS)
    with servers.running_postgres() as server:

        def crash() -> None:
            server.crash()
            server.start()

        found = collector_kills.run(folder, server.new_database(), crash, events=EVENTS, kills=KILLS)
    return {name: value + found[name] for name, value in total.items()}
