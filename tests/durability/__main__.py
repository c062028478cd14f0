"""The runs of `make durability`: kill loops and histories on real servers, written to `runs/bench/durability.json`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.record import machine, write_record
from tests.durability import histories, kill_loops
from tests.monitoring import servers as parts

PARTS: Final = ("kill loops", "histories")
NOTHING: Final = ("lost", "twice", "returned", "stale")  # figures that must be zero


def main() -> None:
    """Runs the parts and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="Of the kill loops, half of them on either store.")
    parser.add_argument("--kills", type=int, default=4, help="Of the collector, on either store.")
    parser.add_argument("--histories", type=int, default=10, help="How many, each with other choices.")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    record: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="newfound-durability-"))
    try:
        if "kill loops" in options.only:
            _kill_loops(folder, options, record)
        if "histories" in options.only:
            _histories(folder, options, record)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in sorted(record.items()):
        print(f"{name:34} {value}")
    record.update(machine("sqlalchemy", "psycopg", "feast"))
    write_record(Path("runs/bench/durability.json"), record)
    sys.exit(any(record.get(name, 0) for name in NOTHING))


def _add(record: dict[str, Any], figures: dict[str, int], prefix: str) -> None:
    print(prefix, figures, flush=True)
    for name, value in figures.items():
        record[f"{prefix}.{name}"] = record.get(f"{prefix}.{name}", 0) + value
        if name in ("events", *NOTHING):
            record[name] = record.get(name, 0) + value


def _kill_loops(folder: Path, options: argparse.Namespace, record: dict[str, Any]) -> None:
    each = {"events": options.events // 2, "kills": options.kills}
    _add(record, kill_loops.run(folder, f"sqlite:///{folder}/kills.db", None, **each), "kill_loops.sqlite")
    with parts.running_postgres() as server:

        def crash() -> None:
            server.crash()
            server.start()

        _add(record, kill_loops.run(folder, server.new_database(), crash, **each), "kill_loops.postgresql")


def _histories(folder: Path, options: argparse.Namespace, record: dict[str, Any]) -> None:
    with parts.running_postgres() as server:
        for seed in range(options.histories):
            here = folder / f"history-{seed}"
            here.mkdir()
            with _redis(here) as port:
                history, figures = histories.run(here, server.new_database(), port, batches=150, seed=seed)
            faults = {name.replace(" ", "_"): count for name, count in history.faults.items()}
            _add(record, {**figures, **faults}, "histories")


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    port = parts.free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        parts.wait_until(lambda: parts.answers(port), 10, "redis")
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    os.environ.setdefault("DO_NOT_TRACK", "1")
    main()
