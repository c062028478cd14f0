"""``make bench-capacity``: what an item costs the services in memory and time, and what a user costs Redis.

Releases of growing size (`capacity_release`) are served by the real processes on loopback. The ranker: seconds until it
is ready, resident memory, and requests as the explorer sends them, the 64 best items of 770 new interests and the best
of three familiar ones. The explorer: memory, and whole requests that bring their histories along. Then users of real
lengths are written to a Redis server of their own through Feast, and keys' memory is asked for.

A size that the record holds is left out, so a run that was ended goes on; `--anew` measures all again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from newfound.service.signals import exit_on_sigterm
from serving.local import __main__ as launcher
from serving.local.processes import Service, free_port
from tests.benchmarks import load
from tests.benchmarks.bench_joint import INTERESTS, SEEN
from tests.benchmarks.bench_serving import SETTINGS, cpu
from tests.benchmarks.capacity_redis import measure_redis
from tests.benchmarks.capacity_release import NEIGHBOURS, SEED
from tests.benchmarks.record import machine, write_record

PREDICT: Final = "/v1/models/newfound:predict"
HISTORY, SHORTLIST, BODIES, CONNECTIONS = 50, 64, 64, 8
READY_S: Final = 900.0
TOGETHER: Final = 1_000_000  # items up to which both services run at once; beyond, one after the other, for the memory


def main() -> None:
    """Measures what the record lacks, and writes it after every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 5_000_000])
    parser.add_argument("--users", type=int, default=20_000, help="in Redis; 0: leave it out")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load")
    parser.add_argument("--anew", action="store_true", help="measure what the record holds as well")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/capacity.json"))
    options = parser.parse_args()
    exit_on_sigterm()  # so that services and releases go with it
    record: dict[str, Any] = {}
    if options.out.exists() and not options.anew:
        record = json.loads(options.out.read_text(encoding="utf-8"))
    record |= {**machine("kserve", "feast", "redis"), "interests": INTERESTS, "neighbours": NEIGHBOURS}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="capacity-", dir=options.out.parent.resolve()) as place:
        for items in options.items:
            if f"explorer.resident_mb@{items}" in record:
                print(f"{items:>9,} items: in the record already", flush=True)
                continue
            found = measure(items, Path(place), options.seconds)
            record |= {f"{name}@{items}": value for name, value in found.items()}
            print(f"{items:>9,} items  " + "  ".join(f"{k} {v}" for k, v in found.items()), flush=True)
            write_record(options.out, record)
        if options.users and record.get("redis.users") != options.users:
            record |= measure_redis(options.users, Path(place) / "redis")
            write_record(options.out, record)


def measure(items: int, place: Path, seconds: float) -> dict[str, float]:
    """Makes, serves and removes a release of so many items."""
    folder, began = place / str(items), time.monotonic()
    root = folder / "releases"
    command = [sys.executable, "-m", "tests.benchmarks.capacity_release", str(items), str(place / "table"), str(root)]
    subprocess.run(command, check=True)
    found = {"made_s": round(time.monotonic() - began, 1), "release_mb": _megabytes_of(root)}
    print(f"{items:>9,} items: made in {found['made_s']:.0f} s, {found['release_mb']:.0f} MB", flush=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    # The services take the ports above; nothing else listens on a free one's neighbours as a rule.
    arguments = ["--releases", str(root), "--port", str(free_port()), "--settings", str(folder / "settings.yaml")]
    options = launcher.parse([*arguments, "--no-page"])
    try:
        with _served(launcher.ranker(options, folder), "ranker", found) as ranker:
            found |= requests(ranker, options.port + 2, items, seconds)
            if items <= TOGETHER:
                with _served(launcher.explorer(options, folder, [], {}), "explorer", found) as explorer:
                    found["explorer.cpu_ms"] = slates(explorer, options.port, items, seconds, "ranker")
        if items > TOGETHER:
            with _served(launcher.explorer(options, folder, [], {}), "explorer", found) as explorer:
                slates(explorer, options.port, items, 2)
    finally:
        shutil.rmtree(folder)
    return found


@contextmanager
def _served(service: Service, name: str, found: dict[str, float]) -> Iterator[Service]:
    """A running service; seconds until it was ready, and its memory at the end, go into `found`."""
    began = time.monotonic()
    try:
        service.start().wait(READY_S)
        found[f"{name}.ready_s"] = round(time.monotonic() - began, 2)
        found[f"{name}.ready_cpu_s"] = round(cpu([service]), 2)
        yield service
        found |= {f"{name}.{key}": value for key, value in memory(service.pid).items()}
    finally:
        service.stop()


def memory(pid: int) -> dict[str, float]:
    """A process's resident memory, of that what is mapped from files, and the most it ever was; megabytes."""
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    values = {name: rest.split()[0] for name, rest in lines if name in ("VmRSS", "VmHWM", "RssFile")}
    names = {"VmRSS": "resident_mb", "VmHWM": "peak_mb", "RssFile": "mapped_mb"}
    return {names[name]: round(int(value) * 1024 / 1e6, 1) for name, value in values.items()}


def requests(ranker: Service, port: int, items: int, seconds: float) -> dict[str, float]:
    """Requests of the explorer to the ranker: throughput of a closed loop, and latency alone and at half of that."""
    bodies = [json.dumps({"instances": [one]}) for one in questions(items)]
    order: dict[str, Any] = {"port": port, "path": PREDICT, "bodies": bodies}
    load.run(**order, concurrency=CONNECTIONS, seconds=2)
    found: dict[str, float] = {}
    spent = cpu([ranker])
    results = _answered(load.run(**order, concurrency=CONNECTIONS, seconds=seconds), ranker)
    found["ranker.requests_per_s"] = round(len(results) / seconds, 1)
    found["ranker.cpu_ms"] = round((cpu([ranker]) - spent) / len(results) * 1e3, 3)
    half = max(found["ranker.requests_per_s"] / 2, 1.0)
    for name, how in (
        ("alone", {"concurrency": 1, "seconds": seconds}),
        ("half_load", {"rate": half, "requests": int(half * seconds) + 1}),
    ):
        took = [latency * 1e3 for _, latency, _, _ in _answered(load.run(**order, **how), ranker)]
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            found[f"ranker.{label}_ms.{name}"] = round(load.percentile(took, share), 3)
    return found


def questions(items: int) -> list[dict[str, Any]]:
    """What the explorer asks: somebody's history, an offset for every new interest, their own interests' best."""
    rng = np.random.default_rng(SEED)
    asked = []
    for _ in range(BODIES):
        interests = rng.permutation(INTERESTS)
        history = [f"i{at:07d}" for at in rng.integers(0, items, HISTORY).tolist()]
        offsets = rng.normal(size=INTERESTS - SEEN).round(4).tolist()
        asked.append(
            {
                "history": history,
                "clusters": [f"c{at}" for at in interests[:3]],
                "k": [10] * 3,
                "exclude": history,
                "offsets": {f"c{at}": value for at, value in zip(interests[SEEN:], offsets, strict=True)},
                "shortlist": SHORTLIST,
            }
        )
    return asked


def slates(explorer: Service, port: int, items: int, seconds: float, present: str = "") -> float:
    """Whole requests, which bring their histories along; processor milliseconds of the explorer for each.

    Args:
        explorer: the service.
        port: its port.
        items: of its release.
        seconds: how long they are sent.
        present: what no answer may have gone without.
    """
    rng = np.random.default_rng(SEED)
    bodies = []
    for _ in range(BODIES):
        history = [f"i{at:07d}" for at in rng.integers(0, items, HISTORY).tolist()]
        bodies.append(json.dumps({"instances": [{"user_id": "u", "history": history, "k": 10, "novel": 3}]}))
    order: dict[str, Any] = {"port": port, "path": PREDICT, "bodies": bodies, "concurrency": CONNECTIONS}
    load.run(**order, seconds=1)
    spent = cpu([explorer])
    results = _answered(load.run(**order, seconds=seconds), explorer)
    without = [codes for _, _, _, codes in results if present and present in codes.split(",")]
    if without:
        raise RuntimeError(f"{len(without)} of {len(results)} slates were made without the {present}")
    return round((cpu([explorer]) - spent) / len(results) * 1e3, 3)


def _answered(results: list[tuple[float, float, int, str]], service: Service) -> list[tuple[float, float, int, str]]:
    """The results, all of them answers.

    Raises:
        RuntimeError: one is not.
    """
    bad = [status for _, _, status, _ in results if status != 200]
    if bad or not results:
        raise RuntimeError(f"{len(bad)} of {len(results)} requests failed, the first with {bad[:1]}\n{service.tail()}")
    return results


def _megabytes_of(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1)


if __name__ == "__main__":
    main()
