"""Ten million events from the store to a report, the collector's throughput, and how soon feedback counts.

`make bench-monitoring`. Two million slates of five slots and eight million feedback events over seven days are put into
a sqlite store. Then `python -m monitoring report` runs as people run it, twice, each time in a process of its own whose
peak memory is taken: export, the last day's measures, those of the six days before, drift, pages, workspace. The same
with a tenth of the events shows what grows with them. What both runs leave behind must be equal to the last digit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from monitoring.store.database import Store
from monitoring.store.rows import micros
from newfound.events import BATCH, user_key
from tests.benchmarks.record import machine, write_record
from tests.monitoring import servers as parts

STOP = datetime(2026, 3, 8, tzinfo=UTC)
DAYS, SEED, USERS, CLUSTERS, ITEMS = 7, 7, 100_000, 761, 50
KINDS = ("shown",) * 5 + ("watched",) * 3 + ("liked",) * 2
PARTS = ("requests", "collector", "report")
RECOMMENDATION = (
    "INSERT INTO recommendations (id, at, user_id, user_key, release, history_length, history_at, successors, leaked,"
    " generated, matched, seed, latency_ms, degraded, interests, slots) VALUES (?,?,?,?,?,?,?,10,?,1,1,?,?,?,'[]',?)"
)
FEEDBACK = (
    "INSERT INTO feedback (id, at, user_id, user_key, recommendation_id, item, kind, share) VALUES (?,?,?,?,?,?,?,?)"
)


def fill(store: Path, slates: int) -> None:
    """Writes `slates` slates and four feedback events on each, past the collector, whose speed is measured apart."""
    Store(f"sqlite:///{store}", parts.SECRET.encode()).close()
    rng = random.Random(SEED)
    users = [(f"u{n}", user_key(f"u{n}", parts.SECRET.encode())) for n in range(USERS)]
    start, step = micros(STOP) - DAYS * 86_400_000_000, DAYS * 86_400_000_000 // slates
    made: list[tuple[int, tuple[str, str], list[tuple[int, int]]]] = []

    def recommended() -> Iterator[tuple[Any, ...]]:
        for n in range(len(made), len(made) + block):
            at, user = start + (first + n) * step, users[rng.randrange(USERS)]
            chosen = [(rng.randrange(CLUSTERS), rng.randrange(ITEMS)) for _ in range(5)]
            made.append((at, user, chosen))
            slots = ",".join(_slot(place, *one, rng.random()) for place, one in enumerate(chosen))
            release = f"release-{(first + n) * 2 // slates}"
            length, age, leaked = rng.randrange(900), rng.randrange(90_000), rng.randrange(4)
            yield (
                f"r{first + n}", at, *user, release, length, at - age * 1_000_000, leaked, str(n), rng.random() * 30,
                rng.random() < 0.01, f"[{slots}]",
            )  # fmt: skip

    def answered() -> Iterator[tuple[Any, ...]]:
        for n, (at, user, chosen) in enumerate(made):
            for place, (cluster, item) in enumerate(chosen[:4]):
                kind = KINDS[rng.randrange(10)]
                share = rng.random() if kind == "watched" else None
                name = f"f{first + n}.{place}"
                yield name, at + place * 20_000_000, *user, f"r{first + n}", f"i{cluster}.{item}", kind, share

    with sqlite3.connect(store) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
        for first in range(0, slates, 100_000):
            block = min(100_000, slates - first)
            connection.executemany(RECOMMENDATION, recommended())
            connection.executemany(FEEDBACK, answered())
            made.clear()
    connection.close()


def _slot(place: int, cluster: int, item: int, score: float) -> str:
    """A slot's JSON as the collector stores it; two of five are new."""
    what = (
        '"kind":"familiar","propensity":1.0,"reason":"familiar","candidates":{},"floor":0.0,"eligible":0,"because":[]'
    )
    if place in (1, 3):
        others = f'"c{cluster}":0.31,"c{(cluster + 1) % CLUSTERS}":0.64'
        what = f'"kind":"novel","propensity":0.31,"reason":"table","candidates":{{{others}}},"floor":0.00007'
        what += ',"eligible":700,"because":["c1","c2"]'
    return f'{{"position":{place},"item":"i{cluster}.{item}","cluster":"c{cluster}",{what},"score":{score:.4f}}}'


def report(store: Path, out: Path) -> tuple[float, float]:
    """Runs a report as a process; its seconds, and its peak memory in MB."""
    command = [sys.executable, "-m", "monitoring", "report", "--window", "1d", "--reference", f"{DAYS - 1}d"]
    command += ["--until", STOP.isoformat(), "--out", str(out)]
    environment = {
        **os.environ,
        "NEWFOUND_STORE": f"sqlite:///{store}",
        "NEWFOUND_USER_KEY": parts.SECRET,
        "DO_NOT_TRACK": "1",
    }
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the report ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def left_behind(store: Path, out: Path) -> dict[str, Any]:
    """All that a report leaves: measures, parts and pages by name, runs in the workspace."""
    with sqlite3.connect(store) as connection:
        measures = connection.execute("SELECT * FROM measures ORDER BY start, stop, release, name").fetchall()
    connection.close()
    runs = json.loads((out / "workspace" / "newfound-runs.json").read_text())
    files = [path for kind in ("exports", "reports") for path in (out / kind).rglob("*")]
    return {
        "measures": measures,
        "files": sorted(str(path.relative_to(out)) for path in files),
        "runs": [(window, len(found)) for window, found in sorted(runs.items())],
        "snapshots": [len(list((out / "workspace").rglob("snapshots/*.json")))],
    }


def reported(folder: Path, events: int) -> dict[str, float]:
    """Reports so many events twice."""
    folder.mkdir()
    store, out = folder / "events.db", folder / "out"
    began = time.perf_counter()
    fill(store, events // 5)
    print(f"{events:,} events, {store.stat().st_size / 1e9:.1f} GB, in {time.perf_counter() - began:.0f} s", flush=True)
    seconds, peaks, left = [], [], []
    for _ in range(2):
        took, peak = report(store, out)
        print(f"reported in {took:.0f} s, at most {peak:.0f} MB", flush=True)
        seconds.append(took)
        peaks.append(peak)
        left.append(left_behind(store, out))
    changed = [
        f"{name}: {sorted(set(left[0][name]) ^ set(left[1][name]))[:10]}"
        for name in left[0]
        if left[0][name] != left[1][name]
    ]
    if changed:
        raise SystemExit(f"the second report changed {'; '.join(changed)}")
    shutil.rmtree(folder)
    figures = {"first_s": round(seconds[0]), "again_s": round(seconds[1]), "peak_mb": round(max(peaks))}
    return figures


def collected(folder: Path, events: int) -> float:
    """Events a second that one collector acknowledges, in batches of 200 over four connections, on sqlite."""
    collector = parts.Collector(f"sqlite:///{folder}/collected.db", folder)
    collector.start()
    try:
        bodies = [
            json.dumps(parts.batch([parts.feedback(n, user_id=str(n % 977)) for n in range(first, first + 200)]))
            for first in range(0, events, 200)
        ]

        def send(mine: list[str]) -> None:
            with httpx.Client(timeout=60) as client:
                for body in mine:
                    answer = client.post(f"{collector.url}/v1/events", content=body, headers={"content-type": BATCH})
                    answer.raise_for_status()

        threads = [threading.Thread(target=send, args=(bodies[number::4],)) for number in range(4)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return events / (time.perf_counter() - began)
    finally:
        collector.stop()


def reflected(folder: Path, redis: bool, times: int) -> dict[str, float]:
    """Milliseconds from an acknowledged like to the first request that knows of it, through explorer and collector."""
    from tests.monitoring.stack import live

    folder.mkdir()
    port = parts.free_port() if redis else None
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL) if redis else None
    try:
        with live(folder, port) as up:
            found = []
            for n in range(times):
                user = f"u{n % len(up.stack.rows)}"
                slate = up.ask_undisturbed(user)
                chosen = next((slot for slot in slate["items"] if slot["slot"] == "novel"), None)
                if chosen is None:
                    continue
                about = {"at": datetime.now(UTC), "user_id": user, "recommendation_id": slate["id"]}
                up.send(parts.feedback(slate["id"], item=chosen["item"], kind="liked", **about))
                found.append(up.until_known(user, chosen["cluster"], chosen["item"])[1] * 1000)
    finally:
        if server is not None:
            server.terminate()
            server.wait()
    found.sort()
    return {"p50": round(found[len(found) // 2]), "worst": round(found[-1]), "of": len(found)}


def main() -> None:
    """Runs the benchmark and writes `runs/bench/monitoring.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument(
        "--folder", type=Path, help="For some 10 GB that are removed again; a temporary one by default."
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="Some of the three parts.")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="newfound-bench-", dir=options.folder))
    result: dict[str, Any] = {"events": options.events}
    try:
        for online in ("sqlite", "redis") if "requests" in options.only else ():
            if online == "redis" and shutil.which("redis-server") is None:
                print("redis: left out, not installed (apt-get install redis-server)")
                continue
            found = reflected(folder / online, online == "redis", 50)
            result.update({f"next_request_ms.{online}.{name}": value for name, value in found.items()})
        if "collector" in options.only:
            result["collector.durable_events_per_s"] = round(collected(folder, 50_000))
        sizes = (("tenth", options.events // 10), ("whole", options.events))
        for name, events in sizes if "report" in options.only else ():
            found = reported(folder / name, events)
            result.update({f"report.{name}.{figure}": value for figure, value in found.items()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "report" in options.only:
        result["report.identical_twice"] = True  # or the benchmark had ended
    result.update({"seed": SEED, **machine("duckdb", "sqlalchemy", "feast", "evidently")})
    for name, value in result.items():
        print(f"{name:34} {value}")
    write_record(Path("runs/bench/monitoring.json"), result)


if __name__ == "__main__":
    main()
