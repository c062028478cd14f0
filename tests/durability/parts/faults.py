"""Every operation of every scenario, every eighth of those whose check is slow, failing as a file system's would."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.durability.faults import FAULTS, break_at
from tests.durability.scenario import scenarios


def measure(folder: Path) -> dict[str, int]:
    """Goes through all of them; what is broken is printed."""
    faults = broken = 0
    for scenario in scenarios():
        for fault in FAULTS:
            count, _ = break_at(scenario, fault, 0)
            for at in range(1, count + 1, 8 if scenario.slow else 1):
                _, problem = break_at(scenario, fault, at)
                faults += 1
                if problem:
                    broken += 1
                    print(f"    {problem}", file=sys.stderr)
    return {"file_faults": faults, "unreadable": broken}
