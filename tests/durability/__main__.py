"""`make durability`: what survives kills and lost power, counted, into runs/bench/durability.json.

Every module in `tests.durability.parts` adds a part by being there: `measure(folder) -> dict[str, int]`, with an empty
folder of its own. Figures of the same name are added up: `events` that were acknowledged, `crash_points` that were
replayed, `lost` and `twice` of what was acknowledged, `unreadable` states. A run of some parts (`--only`) leaves the
others' figures as they were.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tests.durability.parts as parts
from tests.benchmarks.record import machine, write_record

RECORD = Path("runs/bench/durability.json")
NOTHING = ("lost", "twice", "unreadable", "returned", "stale")  # figures that must be zero


def main() -> int:
    """Measures every part, or those that are named; exit status 1 where anything was lost."""
    names = sorted(module.name for module in pkgutil.iter_modules(parts.__path__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=names, nargs="+", default=names)
    record: dict[str, Any] = {}
    if (chosen := parser.parse_args().only) != names and RECORD.exists():
        known = json.loads(RECORD.read_text(encoding="utf-8"))
        record = {figure: value for figure, value in known.items() if figure.split(".")[0] in set(names) - set(chosen)}
    for name in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="newfound-durability-") as folder:
            found: dict[str, int] = importlib.import_module(f"{parts.__name__}.{name}").measure(Path(folder))
        record |= {f"{name}.{figure}": value for figure, value in found.items()}
        print(f"{name}: {found}, {time.monotonic() - began:.0f} s", flush=True)
    whole = Counter(dict.fromkeys(("events", "crash_points", "lost", "twice", "unreadable"), 0))
    for figure, value in record.items():
        whole[figure.split(".", 1)[1]] += value
    write_record(RECORD, {**machine(), **record, **whole})
    return int(any(whole.get(name) for name in NOTHING))


if __name__ == "__main__":
    sys.exit(main())
