"""Ten million events through a report, and the collector's durable throughput: `make bench-monitoring`.

The events are made up by DuckDB, in the layout that the collector exports: two million slates of five slots, eight
million feedback events, over seven days. The window reported is the last day, its reference the six before, and every
measure is taken twice. Memory is the peak of the reporting process, so that what made the events up does not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.benchmarks.record import machine, write_record

STOP = datetime(2026, 3, 8, tzinfo=UTC)
SEED = 7


def make_events(out: Path, slates: int) -> None:
    """Writes exports: `slates` slates of five slots and four feedback events a slate."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET memory_limit = '1GB'; SET preserve_insertion_order = true; SET TimeZone = 'UTC'")
    start = STOP - timedelta(days=7)
    step = timedelta(days=7) // slates // timedelta(microseconds=1)
    base = f"""
        SELECT i, 'r' || i AS recommendation_id,
            TIMESTAMPTZ '{start.isoformat()}' + i * INTERVAL '{step} us'
            AS "at", md5('u' || (hash(i) % 100000)) AS user_key, 'release-' || (i * 2 // {slates}) AS release
        FROM range({slates}) t(i)
    """
    slot = """
        SELECT *, unnest(range(5)) AS position FROM base
    """
    decided = """
        SELECT *, (hash(i * 5 + position) % 761)::INT AS c, position IN (1, 3) AS novel,
            hash(i * 7 + position) % 10 AS die FROM slot
    """
    for name, query in {
        "slates": f"""
            SELECT recommendation_id, "at", user_key, release, (hash(i) % 900)::INT AS history_length,
                "at" - (hash(i + 1) % 90000) * INTERVAL 1 SECOND AS history_at, 10::INT AS successors,
                (hash(i + 2) % 4)::INT AS leaked, 1::INT AS generated, 1::INT AS matched,
                (hash(i + 3) % 30)::FLOAT AS latency_ms, hash(i + 4) % 100 = 0 AS degraded
            FROM ({base})""",
        "slots": f"""
            WITH base AS ({base}), slot AS ({slot}), decided AS ({decided})
            SELECT recommendation_id, "at", user_key, release, position::SMALLINT AS position,
                'i' || c || '.' || (hash(i + position) % 50) AS item_id, 'c' || c AS cluster,
                CASE WHEN novel THEN 'novel' ELSE 'familiar' END AS slot,
                CASE WHEN novel THEN 0.05 ELSE 1.0 END AS propensity,
                CASE WHEN novel THEN 'table' ELSE 'familiar' END AS reason,
                CASE WHEN novel THEN MAP {{'c' || c: 0.05::DOUBLE}} ELSE MAP {{}}::MAP(VARCHAR, DOUBLE) END
                    AS candidates,
                0.001::DOUBLE AS floor, CASE WHEN novel THEN 700 ELSE 0 END AS eligible, [] ::VARCHAR[] AS because,
                (hash(i + position + 9) % 1000 / 1000)::FLOAT AS score
            FROM decided""",
        "feedback": f"""
            WITH base AS ({base}), slot AS ({slot}), decided AS ({decided})
            SELECT 'f' || i || '.' || position AS event_id, "at" + position * INTERVAL 20 SECOND AS "at", user_key,
                recommendation_id, 'i' || c || '.' || (hash(i + position) % 50) AS item_id,
                CASE WHEN die < 5 THEN 'shown' WHEN die < 8 THEN 'watched' ELSE 'liked' END AS kind,
                CASE WHEN die IN (5, 6, 7) THEN (hash(i * 3 + position) % 100) / 100 END AS share
            FROM decided WHERE position < 4""",
    }.items():
        folder = out / name
        folder.mkdir(parents=True)
        part = folder / f"{1:020d}-{slates:020d}.parquet"
        db.execute(f"COPY ({query}) TO '{part}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)")
        print(f"{name}: {part.stat().st_size / 1e6:.0f} MB", flush=True)


def report_once(exports: Path) -> dict[str, object]:
    """Measures the last day and its reference; what the child process prints."""
    from monitoring.windows import measure
    from newfound.config import MonitoringConfig

    config = MonitoringConfig(memory_mb=1024)
    seconds, found = [], []
    for start, stop in ((STOP - timedelta(days=1), STOP), (STOP - timedelta(days=7), STOP - timedelta(days=1))):
        began = time.perf_counter()
        found.append(measure(exports, start, stop, config, clusters=761, scratch=exports.parent).measures)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"window_s": seconds[0], "reference_s": seconds[1], "peak_mb": peak, "measures": found}


def collect(folder: Path, events: int) -> float:
    """Events a second that one collector acknowledges, in batches of 200 over four connections, on sqlite."""
    import threading

    import httpx

    from newfound.events import BATCH
    from tests.monitoring import servers

    collector = servers.Collector(f"sqlite:///{folder}/events.db", folder)
    collector.start()
    try:
        bodies = [
            json.dumps(servers.batch([servers.feedback(n, user_id=str(n % 977)) for n in range(first, first + 200)]))
            for first in range(0, events, 200)
        ]

        def send(mine: list[str]) -> None:
            with httpx.Client(timeout=60) as client:
                for body in mine:
                    client.post(
                        f"{collector.url}/v1/events", content=body, headers={"content-type": BATCH}
                    ).raise_for_status()

        threads = [threading.Thread(target=send, args=(bodies[number::4],)) for number in range(4)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return events / (time.perf_counter() - began)
    finally:
        collector.stop()


def main() -> None:
    """Runs the benchmark and writes `runs/bench/monitoring.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(json.dumps(report_once(options.report)))
        return
    folder = Path(tempfile.mkdtemp(prefix="newfound-bench-"))
    try:
        exports = folder / "exports"
        make_events(exports, options.events // 5)
        outcomes = []
        for _ in range(2):
            command = [sys.executable, "-m", "tests.benchmarks.bench_monitoring", "--report", str(exports)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            outcomes.append(json.loads(done.stdout.splitlines()[-1]))
        assert outcomes[0]["measures"] == outcomes[1]["measures"], "a second report differs"
        rate = collect(folder, 50_000)
    finally:
        shutil.rmtree(folder)
    result = {
        "report.events": options.events,
        "report.window_s": round(outcomes[0]["window_s"], 1),
        "report.reference_s": round(outcomes[0]["reference_s"], 1),
        "report.peak_mb": round(max(outcome["peak_mb"] for outcome in outcomes)),
        "report.identical_twice": True,
        "collector.durable_events_per_s": round(rate),
        "seed": SEED,
        **machine("duckdb", "sqlalchemy"),
    }
    for name, value in result.items():
        print(f"{name:32} {value}")
    write_record(Path("runs/bench/monitoring.json"), result)


if __name__ == "__main__":
    main()
