"""The ranker's model: takedowns as they stand, the sender's deadline, capacity by instance."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from newfound.recommend.joint_ranker import JointRanker
from newfound.release.takedown import Takedown
from serving.http.context import CURRENT, Capacity, RequestContext
from serving.http.errors import Busy, Expired
from serving.ranker.loaded_release import PARTS, LoadedRanker, build_ranker
from serving.ranker.model import RankerModel
from serving.releases import Releases
from serving.settings import ServingConfig


@pytest.fixture(scope="module")
def ranker(release_folder: Path) -> JointRanker:
    return JointRanker.load(release_folder)


@pytest.fixture
def model(release_root: Path, tmp_path: Path) -> RankerModel:
    releases: Releases[LoadedRanker] = Releases(str(release_root), tmp_path, PARTS, build_ranker, 60)
    releases.look()
    return RankerModel("newfound", releases, ServingConfig())


async def rank(model: RankerModel, *instances: dict[str, Any], context: RequestContext | None = None) -> Any:
    token = CURRENT.set(context)
    try:
        return await model.postprocess(await model.predict(await model.preprocess({"instances": list(instances)})))
    finally:
        CURRENT.reset(token)


ONE = {"history": ["i1.1"], "clusters": ["c1", "c2"], "k": 3}


def test_a_list_that_changes_while_it_is_worked_out_is_obeyed_next_time(ranker, monkeypatch):
    """The watching thread may read a new list at any moment of a request."""
    loaded = LoadedRanker(ranker)
    before, after = Takedown(items=frozenset({"i1.1"})), Takedown(items=frozenset({"i1.2"}))
    now = [before]
    positions = loaded._positions

    def changing(takedown: Takedown) -> Any:
        now[0] = after  # read by the other thread just now
        return positions(takedown)

    monkeypatch.setattr(loaded, "_positions", changing)
    assert loaded.taken_down(now[0], ["c1"]) == ["i1.1"]
    monkeypatch.undo()
    assert loaded.taken_down(now[0], ["c1"]) == ["i1.2"]


def test_what_was_taken_down_is_left_out_at_every_level(ranker):
    loaded = LoadedRanker(ranker)
    takedown = Takedown(items=frozenset({"i2.0", "of another release"}), clusters=frozenset({"l1.0", "nowhere"}))
    below = {f"i1.{item}" for item in range(0, 30, 3)}
    assert set(loaded.taken_down(takedown, ["c1"])) == below
    assert set(loaded.taken_down(takedown, ["c1", "c2", "p0"])) == below | {"i2.0"}
    assert loaded.taken_down(takedown, ["c7"]) == [] == loaded.taken_down(Takedown(), ["c1"])


def test_a_query_whose_time_is_up_is_not_ranked(model):
    async def story() -> None:
        context = RequestContext("", Capacity(10), timeout_s=0.05, arrived=time.monotonic() - 0.1)
        with pytest.raises(Expired):
            await rank(model, ONE, context=context)
        context = RequestContext("", Capacity(10), timeout_s=5.0)
        (answer,) = (await rank(model, ONE, context=context))["predictions"]
        assert [len(items) for items in answer["items"].values()] == [3, 3]

    asyncio.run(story())


def test_capacity_is_counted_by_instance(model):
    async def story() -> None:
        context = RequestContext("", Capacity(5))
        assert len((await rank(model, *[ONE] * 5, context=context))["predictions"]) == 5
        assert context.capacity.running == 5
        context.release()
        with pytest.raises(Busy):
            await rank(model, *[ONE] * 6, context=context)
        assert context.capacity.running == 0

    asyncio.run(story())


def test_thousands_of_exclusions_are_taken(model):
    async def story() -> None:
        exclude = [f"i1.{item}" for item in range(28)] + [f"item {at}" for at in range(20_000)]
        (answer,) = (await rank(model, {**ONE, "exclude": exclude}))["predictions"]
        assert {item for item, _ in answer["items"]["c1"]} <= {"i1.28", "i1.29"}

    asyncio.run(story())
