"""Explorer and ranker in one process: the real models over a real release, with HTTP between them."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from newfound.recommend.catalogue import UserHistory
from serving.circuit_breaker import CircuitBreaker
from serving.explorer.live_planner import LivePlanner
from serving.explorer.loaded_release import OPTIONAL, PARTS, LoadedRelease, build_loaded_release
from serving.explorer.model import ExplorerModel
from serving.explorer.ranker_client import NotLoaded, RankerClient, Rejected
from serving.explorer.reporting import Reporter
from serving.http.context import CURRENT, TIMEOUT, Capacity, RequestContext, timeout_s
from serving.http.errors import Refused
from serving.ranker.loaded_release import OPTIONAL as RANKER_OPTIONAL
from serving.ranker.loaded_release import PARTS as RANKER_PARTS
from serving.ranker.loaded_release import LoadedRanker, build_ranker
from serving.ranker.model import RankerModel
from serving.releases import Releases
from serving.settings import ServingConfig

KEY = b"a key of the tests alone"


class Histories:
    """Stored histories, in memory."""

    tried = True

    def __init__(self) -> None:
        self.rows: dict[str, UserHistory] = {}

    async def read(self, user: str) -> UserHistory | None:
        return self.rows.get(user)


class Events:
    """An outbox that keeps what is put into it."""

    url = "kept"

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def put(self, envelope: dict[str, Any]) -> None:
        self.kept.append(envelope)


@dataclass
class Pair:
    """Explorer and ranker over one root of releases.

    Attributes:
        bodies: what the ranker was sent.
        statuses: what it answered.
    """

    explorer: ExplorerModel
    ranker: RankerModel
    histories: Histories
    events: Events
    breakers: dict[str, CircuitBreaker]
    config: ServingConfig
    bodies: list[bytes] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def predict(self, *instances: dict[str, Any], context: RequestContext | None = None) -> list[dict[str, Any]]:
        """The slates of one body."""
        payload = {"instances": list(instances)}
        return list((await _answer(self.explorer, payload, context))["predictions"])

    async def handle(self, request: web.Request) -> web.Response:
        """The ranker over HTTP, its admission's limit included."""
        body = await request.read()
        self.bodies.append(body)
        told = request.headers.get(TIMEOUT)
        self.timeouts.append(timeout_s(told))
        try:
            if len(body) > self.config.ranker_body_bytes:
                raise Refused("too large", "body", 413)
            context = RequestContext("", Capacity(self.config.in_flight), timeout_s(told))
            answer, status = await _answer(self.ranker, json.loads(body), context), 200
        except Refused as error:
            answer, status = error.body(), error.status
        self.statuses.append(status)
        return web.json_response(answer, status=status)

    def take_down(self, items: list[str], clusters: list[str]) -> None:
        """Publishes a takedown list, and lets both read it."""
        for releases in (self.explorer.releases, self.ranker.releases):
            (Path(releases.root) / "takedown.json").write_text(json.dumps({"items": items, "clusters": clusters}))
            releases.look()


async def _answer(model: Any, payload: Any, context: RequestContext | None) -> Any:
    """As KServe's data plane does it."""
    token = CURRENT.set(context)
    try:
        return await model.postprocess(await model.predict(await model.preprocess(payload)))
    finally:
        CURRENT.reset(token)
        if context is not None:
            context.release()


@asynccontextmanager
async def paired(root: Path, cache: Path, **settings: Any) -> AsyncIterator[Pair]:
    """Explorer and ranker over the releases in `root`; `cache` is an empty folder."""
    wide = {"deadline_ms": 5000, "ranker_ms": 4000, "features_ms": 1000, "planner_ms": 500}
    config = ServingConfig.model_validate({**wide, **settings})
    for name in ("explorer", "ranker"):
        (cache / name).mkdir(parents=True)
    build = functools.partial(build_loaded_release, planner=False, remembered=10)
    explorer_releases: Releases[LoadedRelease] = Releases(
        str(root), cache / "explorer", PARTS, build, 60, optional=OPTIONAL
    )
    ranker_releases: Releases[LoadedRanker] = Releases(
        str(root), cache / "ranker", RANKER_PARTS, build_ranker, 60, optional=RANKER_OPTIONAL
    )
    for releases in (explorer_releases, ranker_releases):
        releases.look()  # type: ignore[attr-defined]
    breakers = {
        "features": CircuitBreaker("features", 64, 5, 1000, 1000),
        "ranker": CircuitBreaker("ranker", 64, 5, 1000, config.ranker_ms, (NotLoaded, Rejected)),
        "planner": CircuitBreaker("planner", 4, 5, 1000, 1000),
    }
    histories, events = Histories(), Events()
    app = web.Application(client_max_size=1 << 30)
    runner = web.AppRunner(app)
    pair: Pair | None = None

    async def handle(request: web.Request) -> web.Response:
        assert pair is not None
        return await pair.handle(request)

    app.router.add_post("/v1/models/newfound:predict", handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    client = RankerClient(f"127.0.0.1:{port}", "newfound", 64, config.body_bytes)
    await client.open()
    reporter = Reporter(events, KEY)  # type: ignore[arg-type]
    live = LivePlanner(None, breakers["planner"], config)
    explorer = ExplorerModel("newfound", explorer_releases, histories, client, live, reporter, config, breakers)
    pair = Pair(explorer, RankerModel("newfound", ranker_releases, config), histories, events, breakers, config)
    try:
        yield pair
        await asyncio.sleep(0)
    finally:
        await client.close()
        await runner.cleanup()
