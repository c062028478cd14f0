"""Every crash state of every scenario."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.durability.scenario import everything


def measure(folder: Path) -> dict[str, int]:
    """Goes through all of them; what is broken is printed."""
    points, broken = 0, 0
    for name, found in everything(per_moment=60):
        print(f"  {name}: {found.crash_points} crash points, {len(found.broken)} broken", flush=True)
        for one in found.broken:
            print(f"    {one}", file=sys.stderr)
        points, broken = points + found.crash_points, broken + len(found.broken)
    return {"crash_points": points, "unreadable": broken}
