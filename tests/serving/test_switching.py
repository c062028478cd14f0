"""Releases and takedowns under load: no failed answer, every answer of one release, and the list is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import httpx
import pytest

from newfound.release.store import rollback
from tests.benchmarks import load
from tests.serving.conftest import WORLD, Stack
from tests.serving.synthetic import World, publish_world

PREDICT = "/v1/models/newfound:predict"


def until(check: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def under_load(stack: Stack, rate: float, requests: int) -> subprocess.Popen[str]:
    bodies = [json.dumps({"instances": [{"user_id": f"u{user}"}]}) for user in range(2, 30)]
    port = int(stack.url.rsplit(":", 1)[1])
    return load.start(port=port, path=PREDICT, bodies=bodies, rate=rate, requests=requests)


def serving(stack: Stack) -> str:
    return str(stack.slate(user_id="u3")["release"])


def test_a_new_release_is_taken_up_and_rolled_back_without_a_failed_answer(stack, tmp_path):
    first = serving(stack)
    running = under_load(stack, 20, 200)
    second = publish_world(World(**{**WORLD.__dict__, "salt": " again"}), stack.root, tmp_path / "b").id
    until(lambda: serving(stack) == second)
    slate = stack.slate(user_id="u3")
    assert all(one["title"].endswith(" again") for one in slate["items"]), "one release answers as a whole"
    assert stack.metric("newfound_release_info", release=second) == 1
    rollback(str(stack.root), first)
    until(lambda: serving(stack) == first)
    results = load.collect(running)
    assert len(results) == 200 and {status for _, _, status, _ in results} == {200}
    assert {codes for _, _, _, codes in results} == {""}, "no answer had to step around a part"


def test_a_spoilt_release_changes_nothing_and_is_named(stack, tmp_path):
    first = serving(stack)
    refused = stack.metric("newfound_release_refused_total")
    spoilt = publish_world(World(**{**WORLD.__dict__, "salt": "x"}), stack.root, tmp_path / "b", promote=False).id
    file = stack.root / spoilt / "table" / "log_probs.npy"
    file.write_bytes(file.read_bytes()[:-1])
    (stack.root / "current.draft").write_text(json.dumps({"release": spoilt}))
    os.replace(stack.root / "current.draft", stack.root / "current")
    until(lambda: stack.metric("newfound_release_refused_total") > refused)
    assert serving(stack) == first and "log_probs.npy" in stack.explorer.log.read_text()
    assert httpx.get(f"{stack.url}/v2/models/newfound/ready").status_code == 200
    rollback(str(stack.root), first)


@pytest.mark.parametrize("instance", [{"user_id": "u3"}, {"user_id": "nobody"}, {"history": ["i1.1", "i2.2"]}])
def test_a_takedown_is_obeyed_within_seconds_everywhere(stack, instance):
    before = stack.slate(**instance, seed=8, k=20)
    items = [one["item"] for one in before["items"][:3]]
    cluster = before["items"][-1]["cluster"]
    try:
        (stack.root / "takedown.json").write_text(json.dumps({"items": items, "clusters": [cluster]}))

        def obeyed() -> bool:
            after = stack.slate(**instance, seed=8, k=20)["items"]
            return not any(one["item"] in items or one["cluster"] == cluster for one in after)

        until(obeyed, 20)
        body = {"instances": [{"history": ["i1.1"], "clusters": [cluster, "p0", "p1", "p2", "p3"], "k": 500}]}

        def obeyed_by_the_ranker() -> bool:
            answer = httpx.post(f"{stack.ranker_url}{PREDICT}", json=body).json()["predictions"][0]["items"]
            left = {item for ranked in answer.values() for item, _ in ranked}
            return not answer[cluster] and not left & set(items)

        until(obeyed_by_the_ranker, 20)
    finally:
        (stack.root / "takedown.json").write_text("{}")
        until(lambda: stack.slate(**instance, seed=8, k=20)["items"] == before["items"], 20)


def test_past_its_limit_it_sheds_and_recovers(stack):
    bodies = [json.dumps({"instances": [{"user_id": f"u{user}"} for user in range(2, 12)]})]
    port = int(stack.url.rsplit(":", 1)[1])
    shed = stack.metric("newfound_shed_total")
    results = load.run(port=port, path=PREDICT, bodies=bodies, rate=2000, requests=400)
    statuses = [status for _, _, status, _ in results]
    assert set(statuses) == {200, 503} and len(statuses) == 400
    assert stack.metric("newfound_shed_total") - shed == statuses.count(503)
    for _ in range(5):
        assert stack.predict({"user_id": "u3"}).status_code == 200, "once the crowd is gone, everyone is answered"


def test_a_locked_feature_store_is_stepped_around(stack):
    import sqlite3

    lock = sqlite3.connect(stack.features / "online.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        until(lambda: stack.predict({"user_id": "u3"}).json()["predictions"][0]["degraded"] == ["features"])
        history = [{"item": "i1.1"}, {"item": "i2.2"}]
        slate = stack.slate(user_id="u3", history=history)
        assert slate["degraded"] == ["features"] and any(one["slot"] == "familiar" for one in slate["items"])
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    until(lambda: stack.slate(user_id="u3")["degraded"] == [])
