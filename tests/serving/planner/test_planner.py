"""The live planner: its runtime for one machine, the client, and how long a request waits for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import numpy as np
import pytest
from aiohttp import web

from newfound.planner.planner import Planner
from newfound.planner.remote.completion import EngineError
from newfound.planner.remote.planner import RemotePlanner
from newfound.recommend.decision import SUCCESSORS, PlannerQuery
from newfound.release.store import promote, publish
from serving.circuit_breaker import CircuitBreaker
from serving.deadline import Deadline
from serving.explorer.live_planner import LivePlanner
from serving.explorer.loaded_release import LoadedRelease, build_loaded_release
from serving.planner.client import PlannerClient, Prompts
from serving.planner.runtime import Runtime, create_app
from serving.settings import ServingConfig
from tests.release.gates import HELD
from tests.serving.synthetic import World, publish_with_planner

CONFIG = ServingConfig(planner_ms=300, planner_background_ms=2000, deadline_ms=2000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a tiny random planner in it."""
    return publish_with_planner(World(clusters=12, holes=20), tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="module")
def loaded(root: Path) -> LoadedRelease:
    folder = next(one for one in root.iterdir() if one.is_dir())
    return build_loaded_release(folder, folder.name, planner=True, remembered=100)


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[PlannerClient]:
    """An engine that answers as `handler` does, and the client of it."""
    app = web.Application()
    app.router.add_post("/v1/completions", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    client = PlannerClient(f"http://127.0.0.1:{port}", None, 4)
    await client.open()
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def breaker(**changes: object) -> CircuitBreaker:
    return CircuitBreaker("planner", **{"in_flight": 4, "failures": 3, "open_ms": 100, "patience_ms": 2000, **changes})  # type: ignore[arg-type]


def test_client_and_runtime_give_the_exact_best(root, loaded):
    """Over HTTP: the very prompt, and the log-probabilities of all interests."""
    runtime = Runtime(str(root), root / "unused")
    runtime.load()
    assert runtime.name == loaded.prompts.planner
    app = create_app(runtime)
    exact = Planner.load(next(p for p in root.iterdir() if p.is_dir()) / "planner", loaded.catalogue.clusters)

    async def forward(request: web.Request) -> web.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as http:
            response = await http.post("/v1/completions", content=await request.read(), headers=dict(request.headers))
        return web.Response(status=response.status_code, body=response.content, content_type="application/json")

    async def answer(query: PlannerQuery) -> dict[str, float]:
        async with served(forward) as client:
            return await client.answer(query, 3, loaded.prompts)

    names = loaded.catalogue.interface
    for query in (PlannerQuery(("c3",)), PlannerQuery(("c3", "c5"))):
        allowed = [name not in query.context for name in names]
        best, values = exact.top_k([query.context], 3, np.array([allowed]))
        answered = asyncio.run(answer(query))
        assert list(answered) == [names[at] for at in best[0]]
        assert list(answered.values()) == pytest.approx(values[0].tolist(), abs=1e-3)


def test_the_runtime_refuses_another_model_and_foreign_tokens(root, loaded):
    runtime = Runtime(str(root), root / "unused")
    runtime.load()
    body = {"model": loaded.prompts.planner, "prompt": [1, 2], "allowed_token_ids": [5]}

    async def send(body: dict[str, object]) -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.post("/v1/completions", json=body)

    assert asyncio.run(send(body)).status_code == 400
    assert asyncio.run(send({**body, "model": "another"})).status_code == 404
    assert asyncio.run(send({**body, "prompt": []})).status_code == 422
    own = list(loaded.prompts.completions.prompt.answers)
    assert asyncio.run(send({**body, "prompt": [10**6], "allowed_token_ids": own})).status_code == 400
    told = asyncio.run(send({**body, "allowed_token_ids": own, "logprobs": 3})).json()["choices"][0]["logprobs"]
    assert len(told["top_logprobs"][0]) == 3 and told["token_logprobs"][0] == max(told["top_logprobs"][0].values())


def test_a_planner_is_served_on_when_another_release_has_it(root: Path, loaded: LoadedRelease) -> None:
    """Its name is what its files are; a release with another planner has another name, and is refused by this one."""
    runtime = Runtime(str(root), root / "unused")
    runtime.load()
    before = runtime._planner
    (first,) = [one for one in root.iterdir() if one.is_dir()]
    parts = {name: first / name for name in ("clusters", "table", "ranker", "items.parquet", "planner", "decision")}
    told = {"lineage": {}, "measures": {}, "fits": {}, "gates": HELD}
    parts = {name: path for name, path in parts.items() if path.exists()}
    again = publish({**parts, "more": first / "items.parquet"}, str(root), **told)
    try:
        runtime.load()
        assert runtime._planner is before and runtime.name == again.planner_name
        other = build_loaded_release(root / again.id, again.id, planner=True, remembered=1)
        assert other.prompts is not None and other.prompts.planner == runtime.name
    finally:
        promote(str(root), first.name)
        shutil.rmtree(root / again.id)


def engine(delay: float = 0.0, garbage: object = None) -> tuple[list[float], object]:
    """Tells of the allowed tokens in their order, the first the likeliest."""
    calls: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(time.monotonic())
        allowed = (await request.json())["allowed_token_ids"]
        await asyncio.sleep(delay)
        if garbage is not None:
            return web.json_response(garbage)
        told = {f"token_id:{token}": -0.1 - at for at, token in enumerate(allowed)}
        return web.json_response({"choices": [{"text": "", "logprobs": {"top_logprobs": [told]}}]})

    return calls, handler


def test_an_answer_is_waited_for_and_remembered(loaded):
    calls, handler = engine()

    async def story() -> None:
        async with served(handler) as client:
            live_planner = LivePlanner(client, breaker(), CONFIG)
            query = PlannerQuery(("c1",))
            answer, generated = await live_planner.answer(query, loaded, Deadline(2000))
            assert list(answer)[:2] == ["c0", "c2"] and generated == SUCCESSORS and len(calls) == 1
            assert loaded.answer_cache.get(("c1",)) == answer

    asyncio.run(story())


def test_a_late_answer_serves_the_next_request_and_a_query_is_asked_once(loaded):
    calls, handler = engine(delay=0.5)

    async def story() -> None:
        async with served(handler) as client:
            live_planner = LivePlanner(client, breaker(), CONFIG)
            query = PlannerQuery(("c4",))
            began = time.monotonic()
            answers = await asyncio.gather(*(live_planner.answer(query, loaded, Deadline(2000)) for _ in range(5)))
            assert [answer for answer, _ in answers] == [None] * 5 and time.monotonic() - began < 0.48
            assert len(calls) == 1
            async with asyncio.timeout(10):
                while loaded.answer_cache.get(("c4",)) is None:
                    await asyncio.sleep(0.05)
            assert len(calls) == 1

    asyncio.run(story())


@pytest.mark.parametrize("garbage", [{"choices": [{"text": "something else"}]}, {}, []])
def test_garbage_is_no_answer_and_too_much_of_it_is_not_asked_for_again(loaded, garbage):
    calls, handler = engine(garbage=garbage)

    async def story() -> None:
        async with served(handler) as client:
            live_planner = LivePlanner(client, breaker(), CONFIG)
            for number in range(6):
                query = PlannerQuery((f"c{number}", "c11"))
                answer, _ = await live_planner.answer(query, loaded, Deadline(2000))
                assert answer is None
            assert len(calls) == 3, "the breaker opened"

    asyncio.run(story())


def test_a_release_without_a_planner_is_never_asked_about(loaded):
    async def story() -> None:
        live_planner = LivePlanner(PlannerClient("http://127.0.0.1:9", None, 1), breaker(), CONFIG)
        bare = LoadedRelease(loaded.catalogue, loaded.policy, 10, None, 10)
        assert live_planner.is_there(loaded) and not live_planner.is_there(bare)
        assert not LivePlanner(None, breaker(), CONFIG).is_there(loaded)

    asyncio.run(story())


def test_prompts_never_offer_the_context_itself(loaded):
    prompts = loaded.prompts
    assert isinstance(prompts, Prompts)
    query = PlannerQuery(("c1", "c2"))
    request = prompts.request(query, "m")
    first = prompts.completions.prompt.first_token
    places = [prompts.interface.index(cluster) for cluster in query.context]
    assert request["model"] == "m" and not {first + place for place in places} & set(request["allowed_token_ids"])
    told = {f"token_id:{token}": -1.0 for token in request["allowed_token_ids"]}
    answer = {"choices": [{"logprobs": {"top_logprobs": [told]}}]}
    assert sorted(prompts.read(answer, query)) == sorted(set(prompts.interface) - set(query.context))
    told.popitem()
    with pytest.raises(EngineError, match="of 9 interests; expected 10"):
        prompts.read(answer, query)


def test_live_and_bulk_queries_are_the_same_request(loaded):
    """Two transports, one protocol: what the engine is sent about a context does not tell who sent it."""
    sent = []

    async def live(request: web.Request) -> web.Response:
        sent.append(await request.json())
        return web.Response(status=503)

    def bulk(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(503)

    async def story() -> None:
        async with served(live) as client:
            await client.answer(PlannerQuery(("c3", "c5")), 2, loaded.prompts)

    with pytest.raises(aiohttp.ClientResponseError):
        asyncio.run(story())
    codec, interface = loaded.prompts.completions.prompt, loaded.prompts.interface
    transport = httpx.MockTransport(bulk)
    planner = RemotePlanner(codec, interface, "http://engine", loaded.prompts.planner, transport=transport)
    with pytest.raises(EngineError, match="503"):
        planner.log_probs([("c3", "c5")])
    assert len(sent) == 2 and sent[0] == sent[1]
