"""``make chaos``: parts are killed, restarted, made slow and made wrong while requests keep coming at a fixed rate.

Real processes: Redis behind Feast, the ranker, a planner's engine (vLLM where it is set up, else the runtime of
`serving.planner`), the explorer. Slowness and nonsense come from a proxy in front of each part; kills are kills. Every
request is accounted for: answered in time, with a reason code where a part was stepped around, and without one once the
part is back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from newfound.release.store import current
from serving.local.__main__ import VLLM
from serving.local.processes import Service, free_port
from serving.planner import vllm
from serving.settings import ServingConfig
from tests.benchmarks import load
from tests.benchmarks.record import machine, write_record
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_with_planner

USERS, EVENTS = 1500, 30
# By the planner's engine: contexts that the table leaves out, of 3,540, and what the explorer is told. One remembered
# answer: the planner is asked all the time, not only at first. vLLM shares two cores with everything else here: it is
# asked for fewer requests, which are given more time.
HOLES: Final = {"local": 900, "vllm": 150}
SETTINGS: Final = {
    "local": {"remembered_answers": 1},
    "vllm": {"remembered_answers": 1, "deadline_ms": 600, "planner_ms": 400},
}
FAULTS: Final = ("kill", "stop", "slow", "wrong", "garbage")
SLOW_S: Final = 5.0
FAULT_S, REST_S = 6.5, 6.5  # how long a part is broken, and left in peace afterwards


@dataclass
class Proxy:
    """A TCP proxy in front of one part, in a thread of its own.

    Modes: `pass`; `slow`, answers are held back for five seconds; `wrong`, an error of the part's protocol; `garbage`,
    something that is none.
    """

    target: int
    wrong: bytes
    garbage: bytes
    port: int = field(default_factory=free_port)
    mode: str = "pass"

    def start(self) -> None:
        ready = threading.Event()

        def run() -> None:
            asyncio.run(self._serve(ready))

        threading.Thread(target=run, daemon=True).start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._handle, "127.0.0.1", self.port)
        ready.set()
        await server.serve_forever()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_writer, back = None, None
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
            back = asyncio.create_task(self._back(upstream_reader, writer))
            while data := await reader.read(1 << 16):
                if self.mode in ("wrong", "garbage"):
                    writer.write(self.wrong if self.mode == "wrong" else self.garbage)
                else:
                    upstream_writer.write(data)
        except OSError:
            pass  # either side has gone
        finally:
            if back is not None:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
            if upstream_writer is not None:
                upstream_writer.close()
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.mode == "slow":
                    await asyncio.sleep(SLOW_S)
                writer.write(data)
            writer.close()


def http(status: str, body: bytes) -> bytes:
    """A whole HTTP answer."""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(body),
        body,
    )


@dataclass
class Part:
    """A part that faults are brought upon."""

    name: str
    code: str  # what answers say while it is stepped around
    service: Service
    proxy: Proxy

    def break_it(self, fault: str) -> None:
        if fault == "kill":
            self.service.kill()
        elif fault == "stop":
            self.service.signal(19)
        else:
            self.proxy.mode = fault

    def mend(self, fault: str) -> None:
        if fault == "kill":
            self.service.start().wait()
        elif fault == "stop":
            self.service.signal(18)
        else:
            self.proxy.mode = "pass"


def main() -> None:
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


def misses(record: dict[str, Any]) -> list[str]:
    """The promises that were not kept."""
    none = ("unanswered", "http_5xx", "http_4xx", "degraded_without_code", "degraded_without_fault")
    limits = {name: 0.0 for name in none} | {"p99_ms": record["deadline_ms"] + 100, "recovery_s": 5.0}
    return [f"{name} is {record[name]}, at most {limit:g}" for name, limit in limits.items() if record[name] > limit]


def rehearse(
    folder: Path,
    requests: int,
    rate: float,
    engine: str,
    faults: Sequence[tuple[str, str]] | None = None,
    fault_s: float = FAULT_S,
    rest_s: float = REST_S,
) -> dict[str, Any]:
    """Starts everything, brings the faults one after another, and adds up.

    Args:
        folder: for everything that is written.
        requests: at least so many; they go on until the last part has been back for a while.
        rate: requests a second.
        engine: the planner's, `vllm` or `local`.
        faults: names of parts and what befalls them; None: every fault to every part in turn.
        fault_s: seconds for which a part is broken.
        rest_s: seconds of peace once it is back.
    """
    services: list[Service] = []
    try:
        parts, explorer = start(folder, services, engine)
        rows = histories(world_of(engine), USERS, EVENTS)
        bodies = [json.dumps({"instances": [{"user_id": row["user_id"]}]}) for row in rows]
        port = int(str(explorer.ready).split(":")[2].split("/")[0])
        order = {"port": port, "path": "/v1/models/newfound:predict", "bodies": bodies}
        load.run(**order, rate=min(rate, 20), requests=100)
        generator = load.start(**order, rate=rate, requests=requests, until_told=True)
        time.sleep(rest_s)
        by_name = {part.name: part for part in parts}
        episodes = []
        for name, fault in faults or [(part.name, fault) for fault in FAULTS for part in parts]:
            if name not in by_name:
                continue
            part = by_name[name]
            part.break_it(fault)
            broken = time.monotonic()
            time.sleep(fault_s)
            part.mend(fault)
            episodes.append((part, fault, broken, time.monotonic()))
            print(f"{name} {fault}: away for {episodes[-1][3] - broken:.1f} s", flush=True)
            time.sleep(rest_s)
        generator.terminate()
        deadline = ServingConfig.model_validate(SETTINGS[engine]).deadline_ms
        record = add_up(load.collect(generator), episodes, deadline)
        return {
            **record,
            "rate_per_s": rate,
            "engine": engine,
            "online_store": "redis" if "redis" in by_name else "sqlite",
        }
    finally:
        for service in reversed(services):
            service.stop()


def world_of(engine: str) -> World:
    """The made-up catalogue."""
    return World(parents=6, clusters=60, leaves=4, items=60, dim=32, blocks=1, holes=HOLES[engine])


def start(folder: Path, services: list[Service], engine: str) -> tuple[list[Part], Service]:
    """Redis, ranker, planner, each behind a proxy, and the explorer."""
    root = folder / "releases"
    world, settings = world_of(engine), SETTINGS[engine]
    publish_with_planner(world, folder)
    release = current(str(root))
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    ports = {name: free_port() for name in ("redis", "ranker", "planner", "explorer")}
    shared = ["--releases", str(root), "--host", "127.0.0.1"]
    kserve = [
        *shared,
        "--model_name",
        "newfound",
        "--enable_grpc",
        "false",
        "--settings",
        str(folder / "settings.yaml"),
    ]
    ready = "http://127.0.0.1:{}/v2/models/newfound/ready"
    ranker = Service.module(
        "ranker",
        "serving.ranker",
        [*kserve, "--http_port", str(ports["ranker"])],
        folder,
        ready.format(ports["ranker"]),
    )
    health = f"http://127.0.0.1:{ports['planner']}/health"
    if engine == "vllm":
        # Eager: a killed engine that is compiled anew would be away for a minute and a half.
        run = [*vllm.command(VLLM, root / release / "planner", release, ports["planner"]), "--enforce-eager"]
        planner = Service("planner", run, folder, health, vllm.environment())
    else:
        run = [*shared, "--http_port", str(ports["planner"])]
        planner = Service.module("planner", "serving.planner", run, folder, health, {"OMP_NUM_THREADS": "1"})
    parts = [
        Part(
            "ranker",
            "ranker",
            ranker,
            Proxy(ports["ranker"], http("500 Oops", b"{}"), http("200 OK", b'{"predictions": 7}')),
        ),
        Part(
            "planner", "planner", planner, Proxy(ports["planner"], http("500 Oops", b"{}"), http("200 OK", b"<html>"))
        ),
    ]
    redis = None
    if shutil.which("redis-server"):
        # What is acknowledged is on disk, so that a killed Redis comes back with everybody's history.
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(ports["redis"]), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        service = Service("redis", command, folder, ("127.0.0.1", ports["redis"]))
        parts.insert(
            0, Part("redis", "features", service, Proxy(ports["redis"], b"-ERR oops\r\n", b"\x00\xffnonsense\r\n"))
        )
        redis = f"127.0.0.1:{ports['redis']}"
    services += [part.service.start() for part in parts]
    for part in parts:
        part.service.wait()
        part.proxy.start()
    store.write_sources(folder / "features", history_table(histories(world, USERS, EVENTS)), [])
    store.fill(folder / "features", redis)
    proxied = {part.name: part.proxy.port for part in parts}
    explorer = Service.module(
        "explorer",
        "serving.explorer",
        [
            *kserve,
            *("--http_port", str(ports["explorer"]), "--predictor_host", f"127.0.0.1:{proxied['ranker']}"),
            *("--planner_url", f"http://127.0.0.1:{proxied['planner']}", "--spool", str(folder / "spool")),
            *("--feast", str(store.ROOT / "feature_repo")),
        ],
        folder,
        ready.format(ports["explorer"]),
        store.environment(folder / "features", f"127.0.0.1:{proxied['redis']}" if redis else None),
    )
    services.append(explorer.start())
    return parts, explorer.wait()


def add_up(
    results: list[tuple[float, float, int, str]], episodes: list[tuple[Part, str, float, float]], deadline: float
) -> dict[str, Any]:
    """What became of every request; recovery is from the part's being back to its last degraded answer."""
    latencies = [latency * 1e3 for _, latency, _, _ in results]
    record: dict[str, Any] = {
        "seed": World().seed,
        "requests": len(results),
        "unanswered": sum(status == 0 for _, _, status, _ in results),
        "http_5xx": sum(status >= 500 and status != 503 for _, _, status, _ in results),
        "shed": sum(status == 503 for _, _, status, _ in results),
        "http_4xx": sum(400 <= status < 500 for _, _, status, _ in results),
        "degraded": sum(bool(codes) for _, _, _, codes in results),
        "degraded_without_code": sum("unsaid" in codes for _, _, _, codes in results),
        "deadline_ms": deadline,
        "p50_ms": round(load.percentile(latencies, 0.5), 1),
        "p99_ms": round(load.percentile(latencies, 0.99), 1),
        "max_ms": round(load.percentile(latencies, 1.0), 1),
    }
    recoveries, unexplained = [], {True: 0, False: 0}
    spans = [(part.code, broken, mended) for part, _, broken, mended in episodes]
    for number, (part, fault, broken, mended) in enumerate(episodes):
        until = episodes[number + 1][2] if number + 1 < len(episodes) else float("inf")
        during = [codes for due, _, _, codes in results if broken <= due < mended]
        late = [due - mended for due, _, _, codes in results if mended <= due < until and part.code in codes.split(",")]
        recovery = max(late, default=0.0)
        recoveries.append(recovery)
        record[f"degraded_share.{part.name}.{fault}"] = round(statistics.fmean(bool(codes) for codes in during), 3)
        record[f"recovery_s.{part.name}.{fault}"] = round(recovery, 2)
    for due, _, _, codes in results:
        for code in filter(None, codes.split(",")):
            if not any(code == own and broken - 0.5 <= due <= mended + 5 for own, broken, mended in spans):
                unexplained[code == "planner"] += 1
    record["recovery_s"] = round(max(recoveries, default=0.0), 2)
    record["degraded_without_fault"] = unexplained[False]
    # An engine that shares two cores with everything else here does not always answer in its time.
    record["planner_late_without_fault"] = unexplained[True]
    return record


if __name__ == "__main__":
    main()
