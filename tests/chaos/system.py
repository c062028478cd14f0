"""The whole system for the rehearsal: every service a process of its own, a proxy in front of whatever others call."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from newfound.release.store import current, manifest_of
from serving.local.__main__ import VLLM
from serving.local.processes import Service, free_port
from serving.planner import vllm
from tests.chaos import parts
from tests.chaos.proxy import Proxy, http
from tests.monitoring import servers
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_with_planner

USERS, EVENTS = 1500, 30
# By the planner's engine: contexts that the table leaves out, of 3,540, and what the explorer is told. One remembered
# answer: the planner is asked all the time, not only at first. vLLM shares two cores with everything else here: it is
# asked for fewer requests, which are given more time.
HOLES: Final = {"local": 900, "vllm": 150}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "local": {"remembered_answers": 1},
    "vllm": {"remembered_answers": 1, "deadline_ms": 600, "planner_ms": 400},
}
_READY: Final = "http://127.0.0.1:{}/v2/models/newfound/ready"


@dataclass
class System:
    """What runs.

    Attributes:
        parts: those that faults may befall, by name.
        explorer: its port.
        rows: stored histories.
        database: the store's URL, past its proxy; None where there is no PostgreSQL here, and no collector.
    """

    parts: dict[str, parts.Part]
    explorer: int
    rows: list[dict[str, Any]]
    database: str | None


def world_of(engine: str) -> World:
    """The made-up catalogue."""
    return World(parents=6, clusters=60, leaves=4, items=60, dim=32, blocks=1, holes=HOLES[engine])


@contextlib.contextmanager
def running(folder: Path, engine: str) -> Iterator[System]:
    """Everything, up and answering.

    Args:
        folder: for everything that is written.
        engine: the planner's, `vllm` or `local`.
    """
    with contextlib.ExitStack() as stack:
        starter = _Starter(folder, engine, stack)
        ranker, planner = starter.ranker(), starter.planner()
        redis, database = starter.redis(), starter.database()
        for part in (ranker, planner):
            part.service.wait()
        found = [*filter(None, [redis]), ranker, planner, *database]
        collector = next((part for part in database if part.name == "collector"), None)
        explorer = starter.explorer({part.name: part.proxy.port for part in found}).wait()
        found += [parts.Clock(starter.control), parts.Releases(starter.root)]
        if collector is not None:
            found.append(parts.Disk(starter.control, collector.proxy))
        yield System({part.name: part for part in found}, starter.ports["explorer"], starter.rows, starter.store)
        del explorer


class _Starter:
    """Starts the parts; what it started ends with `stack`."""

    def __init__(self, folder: Path, engine: str, stack: contextlib.ExitStack) -> None:
        self.folder, self.engine, self.stack = folder, engine, stack
        self.root, self.control = folder / "releases", folder / "faults.json"
        self.store: str | None = None
        world = world_of(engine)
        publish_with_planner(world, folder)
        (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS[engine]))
        self.rows = histories(world, USERS, EVENTS)
        names = ("redis", "ranker", "planner", "collector", "explorer")
        self.ports = {name: free_port() for name in names}
        self.shared = ["--releases", str(self.root), "--host", "127.0.0.1"]
        told = ["--model_name", "newfound", "--enable_grpc", "false", "--settings", str(folder / "settings.yaml")]
        self.kserve = [*self.shared, *told]

    def _run(self, service: Service) -> Service:
        self.stack.callback(service.stop)
        return service.start()

    def _proxied(self, name: str, code: str, service: Service, proxy: Proxy, *faults: str) -> parts.Process:
        proxy.start()
        part = parts.Process(name, code, self._run(service), proxy)
        part.faults = faults or part.faults
        return part

    def ranker(self) -> parts.Process:
        port = self.ports["ranker"]
        arguments = [*self.kserve, "--http_port", str(port)]
        service = Service.module("ranker", "serving.ranker", arguments, self.folder, _READY.format(port))
        proxy = Proxy(port, http("500 Oops", b"{}"), http("200 OK", b'{"predictions": 7}'))
        return self._proxied("ranker", "ranker", service, proxy)

    def planner(self) -> parts.Process:
        port = self.ports["planner"]
        health = f"http://127.0.0.1:{port}/health"
        if self.engine == "vllm":
            manifest = manifest_of(str(self.root), str(current(str(self.root))))
            # Eager: a killed engine that is compiled anew would be away for a minute and a half.
            folder, name = self.root / manifest.id / "planner", str(manifest.planner_name)
            run = [*vllm.command(VLLM, folder, name, port), "--enforce-eager"]
            service = Service("planner", run, self.folder, health, vllm.environment())
        else:
            run = [*self.shared, "--http_port", str(port)]
            service = Service.module("planner", "serving.planner", run, self.folder, health, {"OMP_NUM_THREADS": "1"})
        proxy = Proxy(port, http("500 Oops", b"{}"), http("200 OK", b"<html>"))
        return self._proxied("planner", "planner", service, proxy)

    def redis(self) -> parts.Process | None:
        """Redis, with everybody's history in it; None, and Feast's sqlite, where it is not installed."""
        port, url, part = self.ports["redis"], None, None
        if shutil.which("redis-server"):
            # What is acknowledged is on disk, so that a killed Redis comes back with everybody's history.
            command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder)]
            command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
            service, url = Service("redis", command, self.folder, ("127.0.0.1", port)), f"127.0.0.1:{port}"
            faults = ("kill", "stop", "slow", "wrong", "garbage", "half-open", "stall")
            part = self._proxied("redis", "features", service, Proxy(port, b"-ERR oops\r\n"), *faults)
            service.wait()
        store.write_sources(self.folder / "features", history_table(self.rows), [])
        store.fill(self.folder / "features", url)
        return part

    def database(self) -> list[Any]:
        """PostgreSQL and the collector; nothing where PostgreSQL is not installed."""
        if servers.postgres_bin() is None:
            return []
        server = self.stack.enter_context(servers.running_postgres())
        self.store = server.new_database()
        before = Proxy(server.port, b"N")
        before.start()
        port = self.ports["collector"]
        command = ["--port", str(port)]
        told = {"NEWFOUND_STORE": self.store.replace(f":{server.port}/", f":{before.port}/")}
        told["NEWFOUND_USER_KEY"] = servers.SECRET
        ready = f"http://127.0.0.1:{port}/readyz"
        service = Service.module("collector", "monitoring.collector", command, self.folder, ready, told)
        proxy = Proxy(port, http("503 Oops", b"{}"), http("200 OK", b"<html>"))
        part = self._proxied("collector", "", service, proxy, "kill", "stop", "wrong")
        service.wait()
        return [parts.Database(server, before), part]

    def explorer(self, proxies: dict[str, int]) -> Service:
        """The explorer, on a disk and a clock that may fail."""
        features = self.folder / "features"
        arguments = [str(self.control), "serving.explorer", *self.kserve]
        arguments += ["--http_port", str(self.ports["explorer"]), "--spool", str(self.folder / "spool")]
        arguments += ["--predictor_host", f"127.0.0.1:{proxies['ranker']}", "--feast", str(store.ROOT / "feature_repo")]
        arguments += ["--planner_url", f"http://127.0.0.1:{proxies['planner']}"]
        if self.store is not None:
            arguments += ["--collector", f"http://127.0.0.1:{proxies['collector']}/v1/events"]
        redis = f"127.0.0.1:{proxies['redis']}" if "redis" in proxies else None
        told = {**store.environment(features, redis), "NEWFOUND_USER_KEY": servers.SECRET}
        ready = _READY.format(self.ports["explorer"])
        return self._run(Service.module("explorer", "tests.chaos.faulty", arguments, self.folder, ready, told))
