"""What the services answer: protocols, contents, and the same slate whichever way a history comes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from newfound.config import BatchConfig
from newfound.recommend.batch import seed_of, write_slates
from newfound.recommend.recommender import Recommender, history_of_user
from newfound.recommend.slate import Slate
from tests.serving import store


def shown(slate: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    """What a slate is, without its id."""
    return [
        (one["item"], one["slot"], pytest.approx(one["propensity"], rel=1e-3, abs=1e-6), one["reason"])
        for one in slate["items"]
    ]


def test_v1_answers_with_the_documented_slate(stack):
    slate = Slate.model_validate(stack.slate(user_id="u3", k=10, novel=3, seed=11))
    assert len(slate.items) == 10 and sum(item.slot == "novel" for item in slate.items) == 3
    assert slate.degraded == () and slate.seed == 11
    history = stack.history(3)
    seen = {item.split(".")[0].replace("i", "c") for item in history.item_ids}
    for item in slate.items:
        assert item.item not in history.item_ids
        assert (item.cluster in seen) == (item.slot == "familiar")
        assert item.score is not None and 0 < item.propensity <= 1
        if item.reason == "table":
            assert len(item.because) == 2


def test_the_same_history_gives_the_same_slate_whichever_way_it_comes(stack, tmp_path):
    """Feast's online store, its offline store, the request, and the batch; by the services and by the library."""
    store.fetch(stack.features, tmp_path / "histories.parquet")
    config = BatchConfig(k=8, seed=3)
    online = stack.slate(user_id="u5", k=8, seed=seed_of(3, "u5"))
    recommender = Recommender.open(stack.root / online["release"])
    write_slates(recommender, tmp_path, tmp_path / "slates.parquet", config)
    rows = pq.read_table(tmp_path / "slates.parquet", filters=[("user_id", "=", "u5")]).to_pylist()
    in_batch = {"items": [{**row, "item": row["item_id"]} for row in rows]}
    offline = recommender.recommend(history_of_user(tmp_path, "u5"), k=8, seed=seed_of(3, "u5"))
    history = stack.history(5)
    events = [
        {"item": item, "engagement": engagement, "positive": positive}
        for item, engagement, positive in zip(history.item_ids, history.engagements, history.positives, strict=True)
    ]
    brought = stack.slate(history=events, k=8, seed=seed_of(3, "u5"))
    assert shown(online) == shown(brought) == shown(offline.model_dump(mode="json")) == shown(in_batch)


def test_what_was_seen_before_the_stored_history_is_never_novel(stack):
    for seed in range(30):
        slate = stack.slate(user_id="u0", k=20, novel=20, seed=seed)
        assert not {"c20", "c21"} & {one["cluster"] for one in slate["items"] if one["slot"] == "novel"}


def test_stale_interests_are_counted_and_left_out(stack):
    before = stack.metric("newfound_stale_interests_total")
    assert stack.slate(user_id="u1", seed=1)["degraded"] == []
    assert stack.metric("newfound_stale_interests_total") == before + 1


def test_an_unknown_user_gets_what_the_ranker_ranks_without_a_history(stack):
    slate = stack.slate(user_id="nobody knows me", k=10, seed=2)
    assert len(slate["items"]) == 10 and {one["slot"] for one in slate["items"]} == {"novel"}
    assert {one["reason"] for one in slate["items"]} <= {"ranker", "exploration"}


def test_several_requests_in_one_body(stack):
    response = stack.predict({"user_id": "u2", "seed": 1}, {"user_id": "u3", "seed": 1, "k": 3})
    slates = response.json()["predictions"]
    assert [len(slate["items"]) for slate in slates] == [10, 3]
    assert shown(slates[0]) == shown(stack.slate(user_id="u2", seed=1))


def test_v2_by_tensors_and_by_whole_requests(stack):
    url = f"{stack.url}/v2/models/newfound/infer"
    tensors = [
        {"name": "user_id", "datatype": "BYTES", "shape": [2], "data": ["u2", "u3"]},
        {"name": "k", "datatype": "INT32", "shape": [2], "data": [4, 4]},
        {"name": "seed", "datatype": "INT64", "shape": [2, 1], "data": [1, 1]},
    ]
    answer = httpx.post(url, json={"id": "7", "inputs": tensors}).json()
    assert answer["id"] == "7" and answer["outputs"][0]["name"] == "slate"
    whole = [json.dumps({"user_id": user, "k": 4, "seed": 1}) for user in ("u2", "u3")]
    tensor = {"name": "request", "datatype": "BYTES", "shape": [2], "data": whole}
    same = httpx.post(url, json={"inputs": [tensor]}).json()
    slates = [[shown(json.loads(text)) for text in one["outputs"][0]["data"]] for one in (answer, same)]
    assert slates[0] == slates[1] == [[*shown(stack.slate(user_id=user, k=4, seed=1))] for user in ("u2", "u3")]


def test_grpc_v2(stack):
    import asyncio

    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async def send() -> Any:
        client = InferenceGRPCClient(stack.grpc, timeout=20)
        try:
            tensors = [
                InferInput("user_id", [1], "BYTES", data=[b"u4"]),
                InferInput("k", [1], "INT32", data=[5]),
                InferInput("seed", [1], "INT64", data=[9]),
            ]
            return await client.infer(InferRequest("newfound", tensors, request_id="x"))
        finally:
            await client.close()

    response = asyncio.run(send())
    text = response.outputs[0].as_numpy().tolist()[0]
    assert shown(json.loads(text)) == shown(stack.slate(user_id="u4", k=5, seed=9))


def test_grpc_refuses_by_name(stack):
    import asyncio

    import grpc
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async def send() -> None:
        client = InferenceGRPCClient(stack.grpc, timeout=20)
        try:
            await client.infer(InferRequest("newfound", [InferInput("k", [1], "INT32", data=[0])]))
        finally:
            await client.close()

    with pytest.raises(grpc.RpcError) as error:
        asyncio.run(send())
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "instances[0].k" in error.value.details()


def test_kserve_s_own_client(stack):
    import asyncio

    from kserve import InferenceRESTClient, RESTConfig

    async def send() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v1"))
        return await client.infer(stack.url, {"instances": [{"user_id": "u2", "seed": 1}]}, model_name="newfound")

    assert shown(asyncio.run(send())["predictions"][0]) == shown(stack.slate(user_id="u2", seed=1))


def test_the_ranker_alone_is_useful(stack):
    body = {"instances": [{"history": ["i1.2", "i3.4"], "clusters": ["c1", "p2"], "k": 4, "exclude": ["i1.4"]}]}
    answer = httpx.post(f"{stack.ranker_url}/v1/models/newfound:predict", json=body).json()["predictions"][0]
    assert [len(items) for items in answer["items"].values()] == [4, 4]
    assert all(item.startswith("i1.") and item != "i1.4" for item, _ in answer["items"]["c1"])
    refused = httpx.post(
        f"{stack.ranker_url}/v1/models/newfound:predict", json={"instances": [{"history": [], "clusters": ["nowhere"]}]}
    )
    assert refused.status_code == 400 and refused.json()["field"] == "instances.clusters"


def test_readiness_and_metrics_tell_the_truth(stack):
    assert httpx.get(f"{stack.url}/v2/models/newfound/ready").json()["ready"] is True
    stack.slate(user_id="u3")
    text = httpx.get(f"{stack.url}/metrics").text
    for name in ("newfound_stage_seconds_bucket", "newfound_slots_total", "newfound_breaker_state", "newfound_answers"):
        assert name in text
    assert stack.metric("newfound_release_info", release=stack.slate(user_id="u3")["release"]) == 1


def test_logs_are_json_without_user_ids(stack):
    import time

    from newfound.events import user_key
    from tests.serving.conftest import KEY

    user = "somebody-who-must-not-be-named"
    response = stack.predict({"user_id": user}, headers={"x-request-id": "trace-me"})
    assert response.headers["x-request-id"] == "trace-me"
    time.sleep(0.6)
    text = stack.explorer.log.read_text()
    assert user not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request") == "trace-me"]
    assert mine and mine[0]["user"] == user_key(user, KEY.encode()) and mine[0]["release"]
