"""The engine over HTTP gets the same prompt, and is never trusted to tell of every interest."""

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
    """vLLM's completions of one token, by the planner itself."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.requests, self.answer = planner, [], None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/version":
            return httpx.Response(200, json={"version": "1.2.3"})
        body = json.loads(request.content)
        self.requests.append(body)
        if self.answer is not None:
            return httpx.Response(200, json=self.answer)
        assert body["max_tokens"] == 1 and body["temperature"] == 0 and body["return_tokens_as_token_ids"]
        rows = self.planner.rows[[token - self.planner.codec.first_token for token in body["allowed_token_ids"]]]
        logits = self.planner.read([tuple(body["prompt"])])[0] @ rows.T
        values = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        order = np.argsort(-values)[: body["logprobs"]].tolist()
        told = {f"token_id:{body['allowed_token_ids'][at]}": float(values[at]) for at in order}
        return httpx.Response(200, json=completion(told))


def completion(told: dict[str, float]) -> dict[str, object]:
    best, value = next(iter(told.items()))
    steps = {"tokens": [best], "token_logprobs": [value], "top_logprobs": [told]}
    return {"choices": [{"text": "", "logprobs": steps}]}


@pytest.fixture
def engine(trained_planner: Trained, planner_world: Path) -> Engine:
    return Engine(Planner.load(trained_planner[0], Clusters.load(planner_world / "clusters"), precision="float32"))


def remote(engine: Engine) -> RemotePlanner:
    transport = httpx.MockTransport(engine)
    return RemotePlanner(engine.planner.codec, engine.planner.nodes, "http://engine", "planner", transport=transport)


def test_both_engines_give_the_same_log_probabilities(engine: Engine) -> None:
    contexts = [("c0", "c3"), ("c1", "c4"), ("c7", "c2")]
    np.testing.assert_allclose(remote(engine).log_probs(contexts), engine.planner.log_probs(contexts), atol=1e-4)
    assert len(engine.requests) == 3 and len(engine.requests[0]["allowed_token_ids"]) == 6


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": [{"text": " crime", "logprobs": None}]},
        {"choices": [{"text": None}]},
        [],
        completion({" crime": -0.1}),
        completion({"token_id:x": -0.1}),
        completion({"token_id:5": -0.1}),
    ],
)
def test_an_answer_without_the_interests_is_an_error(engine: Engine, answer: object) -> None:
    engine.answer = answer
    with pytest.raises(EngineError, match="log-probabilities"):
        remote(engine).log_probs([("c0", "c3")])


def test_an_engine_that_tells_of_too_few_is_told_what_it_needs(engine: Engine) -> None:
    engine.answer = completion({f"token_id:{token}": -1.0 for token in list(engine.planner.codec.answers)[:5]})
    with pytest.raises(EngineError, match="of 3 interests; expected 6 .*--max-logprobs"):
        remote(engine).log_probs([("c0", "c3")])  # two of the five are the context's own


def test_an_engine_that_refuses_raises(engine: Engine) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(503))
    planner = RemotePlanner(engine.planner.codec, engine.planner.nodes, "http://engine", "m", transport=transport)
    with pytest.raises(EngineError, match="http://engine: answered 503"):
        planner.log_probs([("c0", "c3")])


def test_a_table_can_be_built_by_the_engine(
    engine: Engine, trained_planner: Trained, planner_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = httpx.AsyncClient.send

    async def answered(client: httpx.AsyncClient, request: httpx.Request, **options: object) -> httpx.Response:
        assert request.url.host == "engine"
        response = engine(request)
        response.request = request
        return response

    config = TableConfig(shards=1, engine="http://engine", second_build=8, precision="float32")
    places = (trained_planner[0], planner_world / "clusters", planner_world / "transitions")
    monkeypatch.setattr(httpx.AsyncClient, "send", answered)
    build_table(*places, config, tmp_path / "theirs")
    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    build_table(*places, config.model_copy(update={"engine": None}), tmp_path / "ours")
    clusters = Clusters.load(planner_world / "clusters")
    theirs, ours = (TransitionTable.load(tmp_path / name, clusters) for name in ("theirs", "ours"))
    assert len(theirs) == len(ours) == 56
    contexts = list(ours.contexts())
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(theirs.log_probs(contexts), ours.log_probs(contexts), atol=0.01)
    records = [json.loads((tmp_path / name / "table.json").read_text()) for name in ("theirs", "ours")]
    assert (records[0]["engine"]["engine"], records[0]["engine"]["server"]) == ("openai", "1.2.3")
    assert records[1]["engine"]["engine"] == "lean" and records[1]["engine"]["newfound"]
    assert all(record["second_build"]["top1_agreement"] == 1 for record in records)
