"""``make bench-serving``: the whole real path beside KServe's own chain with nothing in it, on this machine.

The real path: Feast (Redis where it is installed), the policy, five clusters ranked in a catalogue of 100 thousand
items, the slate, log line and event to a collector that throws it away. One worker in each process of either chain, the
same v1 protocol, the load generator in a process of its own; the chains take turns, several rounds each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from newfound.config import PolicyConfig
from serving.local.processes import Service, free_port
from tests.benchmarks import load
from tests.benchmarks.record import machine, write_record
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_world

PREDICT = "/v1/models/newfound:predict"
WORLD = World(parents=8, clusters=120, leaves=8, items=834, dim=64, blocks=2, policy=PolicyConfig(clusters_per_slate=5))
USERS, EVENTS = 500, 60
# Wide enough that nothing is given up on: every answer that counts is one of full service.
SETTINGS = {"deadline_ms": 5000, "features_ms": 2000, "ranker_ms": 3000, "in_flight": 256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/serving.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="newfound-bench-") as folder:
        record = measure(Path(folder), options.seconds, options.rounds)
    for name, value in record.items():
        print(f"{name:42} {value}")
    write_record(options.out, {**record, **machine("kserve", "feast", "fastapi", "uvicorn", "aiohttp", "redis")})


def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Starts everything, measures, ends everything."""
    services: list[Service] = []
    try:
        root = folder / "releases"
        publish_world(WORLD, root, folder / "parts")
        rows = histories(WORLD, USERS, EVENTS)
        redis, environment = features(folder, rows, services)
        ports = {name: free_port() for name in ("explorer", "ranker", "transformer", "predictor", "sink")}
        noop = chain(folder, ports)
        services += noop
        sink = f"http://127.0.0.1:{ports['sink']}/health"
        services.append(
            Service.module("sink", "tests.benchmarks.sink", [str(ports["sink"])], folder, sink).start().wait()
        )
        ready_s, real = start_real(folder, root, ports, environment)
        services += real
        bodies = [json.dumps({"instances": [{"user_id": row["user_id"], "k": 10, "novel": 3}]}) for row in rows]
        ours = {"port": ports["explorer"], "path": PREDICT, "bodies": bodies}
        theirs = {"port": ports["transformer"], "path": PREDICT, "bodies": bodies}
        record: dict[str, Any] = {"seed": WORLD.seed, "items": WORLD.clusters * WORLD.items, "clusters_ranked": 5}
        record |= {"online_store": "redis" if redis else "sqlite", "ready_s": round(ready_s, 2)}
        for one in (ours, theirs):
            load.run(**one, concurrency=8, seconds=3)
        for concurrency in (1, 32):
            rates: dict[str, list[float]] = {"ours": [], "noop": []}
            spent = {"ours": cpu(real), "noop": cpu(noop)}
            before = reading(ports["explorer"])
            for _ in range(rounds):
                for name, one in (("ours", ours), ("noop", theirs)):
                    results = load.run(**one, concurrency=concurrency, seconds=seconds)
                    check(results)
                    rates[name].append(len(results) / seconds)
            after = reading(ports["explorer"])
            ratios = [mine / other for mine, other in zip(rates["ours"], rates["noop"], strict=True)]
            record[f"throughput_ratio_vs_noop_chain@{concurrency}"] = round(statistics.median(ratios), 3)
            record[f"throughput_ratio_lowest@{concurrency}"] = round(min(ratios), 3)
            for name, values in rates.items():
                record[f"requests_per_s.{name}@{concurrency}"] = round(statistics.median(values), 1)
            for name, processes in (("ours", real), ("noop", noop)):
                requests = sum(rates[name]) * seconds
                record[f"cpu_ms_per_request.{name}@{concurrency}"] = round(
                    (cpu(processes) - spent[name]) / requests * 1e3, 3
                )
            for stage in ("features", "decide", "ranker", "finish"):
                count = after[f"{stage}_count"] - before[f"{stage}_count"]
                record[f"{stage}_ms@{concurrency}"] = round((after[stage] - before[stage]) / count * 1e3, 4)
        record["feature_read_ms"] = record["features_ms@1"]
        rate = record["requests_per_s.ours@32"] / 2
        results = load.run(**ours, rate=rate, requests=int(rate * max(seconds * 3, 10)))
        check(results)
        latencies = [latency * 1e3 for _, latency, _, _ in results]
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)):
            record[name] = round(load.percentile(latencies, share), 2)
        record["half_load_requests_per_s"] = round(rate, 1)
        return record
    finally:
        for service in reversed(services):
            service.stop()


def features(folder: Path, rows: list[dict[str, Any]], services: list[Service]) -> tuple[bool, dict[str, str]]:
    """A filled online store: whether it is Redis, and the explorer's environment."""
    redis = None
    if shutil.which("redis-server"):
        port = free_port()
        redis = f"127.0.0.1:{port}"
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
        services.append(Service("redis", command, folder, ("127.0.0.1", port)).start().wait())
    store.write_sources(folder / "features", history_table(rows), [])
    store.fill(folder / "features", redis)
    return redis is not None, store.environment(folder / "features", redis)


def chain(folder: Path, ports: dict[str, int]) -> list[Service]:
    """The no-op transformer and predictor."""
    made = []
    for role, port, arguments in (
        ("predictor", ports["predictor"], []),
        ("transformer", ports["transformer"], ["--predictor_host", f"127.0.0.1:{ports['predictor']}"]),
    ):
        command = [role, "--http_port", str(port), *arguments]
        ready = f"http://127.0.0.1:{port}/v2/models/newfound/ready"
        made.append(Service.module(f"noop-{role}", "tests.benchmarks.noop_chain", command, folder, ready).start())
    return [service.wait() for service in made]


def start_real(
    folder: Path, root: Path, ports: dict[str, int], environment: dict[str, str]
) -> tuple[float, list[Service]]:
    """Explorer and ranker, and how long they took to be ready; the events go to a sink."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    shared = ["--releases", str(root), "--host", "127.0.0.1", "--model_name", "newfound", "--enable_grpc", "false"]
    shared += ["--settings", str(folder / "settings.yaml")]
    began = time.monotonic()
    made = [
        Service.module(
            "ranker",
            "serving.ranker",
            [*shared, "--http_port", str(ports["ranker"])],
            folder,
            f"http://127.0.0.1:{ports['ranker']}/v2/models/newfound/ready",
        ).start(),
        Service.module(
            "explorer",
            "serving.explorer",
            [
                *shared,
                *("--http_port", str(ports["explorer"]), "--predictor_host", f"127.0.0.1:{ports['ranker']}"),
                *("--feast", str(store.ROOT / "feature_repo"), "--spool", str(folder / "spool")),
                *("--collector", f"http://127.0.0.1:{ports['sink']}/v1/events"),
            ],
            folder,
            f"http://127.0.0.1:{ports['explorer']}/v2/models/newfound/ready",
            {**environment, "NEWFOUND_USER_KEY": "a key of this benchmark"},
        ).start(),
    ]
    for service in made:
        service.wait()
    return time.monotonic() - began, made


def cpu(services: list[Service]) -> float:
    """Processor seconds that these processes have used."""
    total = 0
    for service in services:
        fields = Path(f"/proc/{service.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def reading(port: int) -> dict[str, float]:
    """Sums and counts of the explorer's stages."""
    found = {}
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines():
        for kind, suffix in (("sum", ""), ("count", "_count")):
            if line.startswith(f"newfound_stage_seconds_{kind}{{"):
                found[line.split('"')[1] + suffix] = float(line.rpartition(" ")[2])
    return found


def check(results: list[tuple[float, float, int, str]]) -> None:
    """Only answers of full service count."""
    bad = [(status, codes) for _, _, status, codes in results if status != 200 or codes]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(results)} answers are not of full service: {bad[0]}")


if __name__ == "__main__":
    main()
