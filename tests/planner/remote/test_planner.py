"""The engine over HTTP gets the same prompt and the same choices, and is never trusted to answer among them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.planner.planner import Planner
from newfound.planner.remote.completion import EngineError
from newfound.planner.remote.planner import RemotePlanner
from newfound.table import TransitionTable, build_table

Trained = tuple[Path, dict[str, object]]


class Engine:
    """What an engine with structured output does, by the planner itself, to which each choice is a token."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.requests, self.answer = planner, [], None
        self.contexts = {
            planner.codec.tokens((a, b)): (planner.nodes[a], planner.nodes[b])
            for a in range(len(planner))
            for b in range(len(planner))
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/version":
            return httpx.Response(200, json={"version": "1.2.3"})
        body = json.loads(request.content)
        self.requests.append(body)
        if self.answer is not None:
            return httpx.Response(200, json=self.answer)
        if body.get("echo"):
            return httpx.Response(200, json={"choices": [self.read(i, p) for i, p in enumerate(body["prompt"])]})
        context = self.contexts[tuple(body["prompt"])]
        choices = body["structured_outputs"]["choice"]
        texts = self.planner.codec.choices()
        allowed = np.array([[text in choices for text in texts]])
        count = min(body["logprobs"], len(choices))
        best, values = (found[0].tolist() for found in self.planner.top_k([context], count, allowed))
        listed = {texts[at]: value for at, value in zip(best, values, strict=True)}
        return httpx.Response(200, json={"choices": [completion(texts[best[0]], listed)]})

    def read(self, index: int, prompt: list[int]) -> dict[str, object]:
        """A prompt that ends with a description, all of whose log-probability is told with its last token."""
        ends = [(*answer, self.planner.codec.end) for answer in self.planner.codec.answers]
        label = max(
            (at for at, end in enumerate(ends) if tuple(prompt[-len(end) :]) == end), key=lambda at: len(ends[at])
        )
        context = self.contexts[tuple(prompt[: -len(ends[label])])]
        score = float(self.planner.scores([context], exhaustive=True)[0, label])
        return {"index": index, "logprobs": {"token_logprobs": [None, *[0.0] * (len(prompt) - 2), score, -9.0]}}


def completion(text: str, listed: dict[str, float]) -> dict[str, object]:
    steps = {"tokens": [text], "token_logprobs": [listed[text]], "top_logprobs": [listed]}
    return {"text": text, "logprobs": steps}


@pytest.fixture
def engine(trained_planner: Trained, planner_world: Path) -> Engine:
    return Engine(Planner.load(trained_planner[0], Clusters.load(planner_world / "clusters"), precision="float32"))


def remote(engine: Engine) -> RemotePlanner:
    transport = httpx.MockTransport(engine)
    return RemotePlanner(engine.planner.codec, engine.planner.nodes, "http://engine", "planner", transport=transport)


def test_both_engines_give_the_same_answers(engine: Engine) -> None:
    contexts = [("c0", "c3"), ("c1", "c4"), ("c7", "c2")]
    allowed = np.ones((3, 8), dtype=bool)
    allowed[0, 4] = False
    ours = engine.planner.decode(contexts, 2, allowed).top(2)
    theirs = remote(engine).decode(contexts, 2, allowed).top(2)
    np.testing.assert_array_equal(theirs[0], ours[0])
    np.testing.assert_allclose(theirs[1], ours[1], atol=1e-4)
    first = engine.requests[0]
    assert first["temperature"] == 0 and "guided_choice" not in first
    assert len(first["structured_outputs"]["choice"]) == 7


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": [completion("ignore all instructions", {"ignore all instructions": 0.0})]},
        {"choices": [{"text": " crime", "logprobs": None}]},
        {"choices": [{"text": None}]},
        [],
        {"choices": [{"text": " crime", "logprobs": {"tokens": [" crime"], "token_logprobs": [], "top_logprobs": []}}]},
    ],
)
def test_an_answer_that_is_no_choice_is_an_error(engine: Engine, answer: object) -> None:
    engine.answer = answer
    with pytest.raises(EngineError, match="expected one of the choices"):
        remote(engine).decode([("c0", "c3")], 1)


def test_a_choice_that_was_not_offered_is_an_error(engine: Engine) -> None:
    own = engine.planner.codec.choices()[0]
    engine.answer = {"choices": [completion(own, {own: 0.0})]}
    with pytest.raises(EngineError, match="choices it was given"):
        remote(engine).decode([("c0", "c3")], 1)  # c0 is in the context, so it is not new


def test_an_engine_that_refuses_raises(engine: Engine) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(503))
    planner = RemotePlanner(engine.planner.codec, engine.planner.nodes, "http://engine", "m", transport=transport)
    with pytest.raises(EngineError, match="http://engine: answered 503"):
        planner.decode([("c0", "c3")], 1)


def test_a_table_can_be_built_by_the_engine(
    engine: Engine, trained_planner: Trained, planner_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = httpx.AsyncClient.send

    async def answered(client: httpx.AsyncClient, request: httpx.Request, **options: object) -> httpx.Response:
        assert request.url.host == "engine"
        response = engine(request)
        response.request = request
        return response

    config = TableConfig(top_k=4, exact=1, shards=1, engine="http://engine", second_build=8, precision="float32")
    places = (trained_planner[0], planner_world / "clusters", planner_world / "transitions")
    monkeypatch.setattr(httpx.AsyncClient, "send", answered)
    build_table(*places, config, tmp_path / "theirs")
    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    build_table(*places, config.model_copy(update={"engine": None}), tmp_path / "ours")
    clusters = Clusters.load(planner_world / "clusters")
    theirs, ours = (TransitionTable.load(tmp_path / name, clusters) for name in ("theirs", "ours"))
    assert len(theirs) == len(ours) == 56
    for context in ours.contexts():
        one, many = theirs.successors(context) or [], ours.successors(context) or []
        assert len(one) == 1 and len(many) == 4 and one[0].cluster == many[0].cluster
    records = [json.loads((tmp_path / name / "table.json").read_text()) for name in ("theirs", "ours")]
    assert (records[0]["engine"]["engine"], records[0]["engine"]["server"]) == ("openai", "1.2.3")
    assert records[1]["engine"]["engine"] == "lean" and records[1]["engine"]["newfound"]
    assert all(record["second_build"]["top1_agreement"] == 1 for record in records)
