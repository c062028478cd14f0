"""``make chaos``: parts are killed, stopped, cut off, made slow and made wrong while requests keep coming.

Real processes: Redis behind Feast, the ranker, a planner's engine (vLLM where it is set up, else the runtime of
`serving.planner`), PostgreSQL behind the collector, the explorer on a disk and a clock that fail. Kills are kills;
slowness, nonsense, stalls and half-open connections come from a proxy in front of each part. Every request is
accounted for: answered in time, with a reason code where a part was stepped around, and without one once the part is
back. So is every slate's event: stored, or dropped and counted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from serving.local.__main__ import VLLM
from tests.benchmarks.record import machine, write_record
from tests.chaos.accounts import misses
from tests.chaos.rehearsal import rehearse


def main() -> None:
    """Rehearses, writes the record, and fails where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="at least")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--planner", choices=["auto", "vllm", "local"], default="auto", help="the planner's engine")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/chaos.json"))
    options = parser.parse_args()
    engine = options.planner
    if engine == "auto":
        engine = "vllm" if VLLM.exists() else "local"
    with tempfile.TemporaryDirectory(prefix="newfound-chaos-") as folder:
        record = rehearse(Path(folder), options.requests, options.rate, engine)
    for name, value in record.items():
        print(f"{name:34} {value}")
    write_record(options.out, {**record, **machine("kserve", "feast", "redis")})
    if missed := misses(record):
        raise SystemExit(f"not kept: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
