"""The explorer's model before a real ranker: what it asks is answered, what it shows may be shown and is reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring.collector.intake import Intake
from monitoring.settings import MonitoringConfig
from newfound.events import BATCH
from newfound.recommend.catalogue import UserHistory
from serving.circuit_breaker import State
from serving.http.context import Capacity, RequestContext
from serving.http.errors import Busy
from tests.serving.in_process import KEY, Pair, paired
from tests.serving.synthetic import World, publish_world

LARGE = World(parents=2, clusters=6, items=2000, dim=8)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 12,000 items."""
    folder = tmp_path_factory.mktemp("large")
    publish_world(LARGE, folder / "releases", folder / "parts")
    return folder / "releases"


def run(root: Path, cache: Path, story: Callable[[Pair], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with paired(root, cache, **settings) as pair:
            await story(pair)

    asyncio.run(main())


def history(*items: str) -> UserHistory:
    """Everything of it liked."""
    return UserHistory(items, [1.0] * len(items), [True] * len(items))


def taken(events: list[dict[str, Any]]) -> None:
    """The collector takes them."""
    intake = Intake(MonitoringConfig(), KEY)
    assert intake.read({"content-type": BATCH}, json.dumps(events).encode(), datetime.now(UTC))


def test_a_takedown_of_thousands_of_items_costs_no_answer(release_root, large, tmp_path):
    gone = [f"i{cluster}.{item}" for cluster in range(6) for item in range(1, 2000) if item % 10]

    async def story(pair: Pair) -> None:
        pair.take_down(gone, [])
        try:
            for seed in range(8):
                (slate,) = await pair.predict({"history": ["i0.0", "i1.0", "i2.0"], "seed": seed})
                assert slate["degraded"] == [] and slate["items"]
                assert not {one["item"] for one in slate["items"]} & set(gone)
            assert pair.statuses == [200] * 8 and pair.breakers["ranker"].state is State.CLOSED
            assert max(len(body) for body in pair.bodies) < 2000, "the ranker knows takedowns itself"
        finally:
            pair.take_down([], [])

    run(large, tmp_path, story)


def test_what_the_ranker_does_not_know_is_taken_down_yet_is_not_shown(large, tmp_path):
    gone = {f"i{cluster}.{item}" for cluster in range(6) for item in range(1500)}

    async def story(pair: Pair) -> None:
        root = Path(pair.explorer.releases.root)
        (root / "takedown.json").write_text(json.dumps({"items": sorted(gone)}))
        pair.explorer.releases.look()
        try:
            for seed in range(8):
                (slate,) = await pair.predict({"history": ["i0.1900", "i1.1900"], "seed": seed})
                assert slate["items"] and not {one["item"] for one in slate["items"]} & gone
        finally:
            pair.take_down([], [])

    run(large, tmp_path, story)


def test_many_users_with_long_ids_are_sent_in_parts(large, tmp_path):
    async def story(pair: Pair) -> None:
        known = [f"i{cluster}.{item}" for cluster in range(6) for item in range(200)]
        long = [f"{name}-{'x' * 240}" for name in known]
        for user in range(24):
            pair.histories.rows[f"u{user}"] = history(*known[user:], *long)
        slates = await pair.predict(*({"user_id": f"u{user}"} for user in range(24)))
        assert [slate["degraded"] for slate in slates] == [[]] * 24
        assert len(pair.bodies) > 1 and max(len(body) for body in pair.bodies) <= 2 * pair.config.body_bytes
        assert pair.breakers["ranker"].state is State.CLOSED

    run(large, tmp_path, story, history_at_most=5000)


def test_what_the_ranker_rejects_opens_no_breaker_and_costs_nobody_else_their_answer(large, tmp_path):
    async def story(pair: Pair) -> None:
        pair.histories.rows["large"] = history(*(f"{at}-{'x' * 250}" for at in range(900)), "i0.1")
        pair.histories.rows["small"] = history("i0.1")
        for _ in range(6):
            slates = await pair.predict({"user_id": "small"}, {"user_id": "large"})
            assert [slate["degraded"] for slate in slates] == [[], ["ranker"]]
        assert 413 in pair.statuses and pair.breakers["ranker"].state is State.CLOSED

    run(large, tmp_path, story, body_bytes=20_000, ranker_body_bytes=40_000)


@pytest.mark.parametrize("at", [0, 2**53 - 1, 253_402_300_800_000, 253_402_300_799_999, 1_790_000_000_000])
def test_every_time_that_a_request_may_name_is_reported(release_root, tmp_path, at):
    async def story(pair: Pair) -> None:
        from serving.http.errors import Refused

        instances = [{"history": [{"item": "i1.1", "at": at}]}, {"history": ["i2.2"]}]
        try:
            slates = await pair.predict(*instances)
        except Refused as refused:
            assert at >= 253_402_300_800_000 and refused.field == "instances[0].history[0].at"
            return
        await asyncio.sleep(0)
        assert [event["id"] for event in pair.events.kept] == [slate["id"] for slate in slates]
        taken(pair.events.kept)

    run(release_root, tmp_path, story)


def test_a_stored_time_out_of_range_costs_nobody_an_event(release_root, tmp_path):
    async def story(pair: Pair) -> None:
        pair.histories.rows["odd"] = UserHistory(["i1.1"], [1.0], [True], newest=2**62)
        slates = await pair.predict({"user_id": "odd"}, {"history": ["i2.2"]})
        await asyncio.sleep(0)
        assert [event["id"] for event in pair.events.kept] == [slate["id"] for slate in slates]
        taken(pair.events.kept)

    run(release_root, tmp_path, story)


def test_the_requests_time_reaches_the_ranker(release_root, tmp_path):
    async def story(pair: Pair) -> None:
        await pair.predict({"history": ["i1.1"], "deadline_ms": 2000})
        await pair.predict({"history": ["i1.1"]}, context=RequestContext("", Capacity(9), timeout_s=1.0))
        first, second = pair.timeouts
        assert first is not None and 1.0 < first < 2.0 and second is not None and 0.3 < second < 1.0

    run(release_root, tmp_path, story)


def test_capacity_is_counted_by_instance(release_root, tmp_path):
    async def story(pair: Pair) -> None:
        capacity = Capacity(10)
        many = [{"history": ["i1.1"], "seed": 1}] * 8
        running = asyncio.create_task(pair.predict(*many, context=RequestContext("", capacity)))
        while capacity.running < 8:
            await asyncio.sleep(0)
        with pytest.raises(Busy):
            await pair.predict(*many[:3], context=RequestContext("", capacity))
        assert capacity.running == 8 and len(await pair.predict(*many[:2], context=RequestContext("", capacity))) == 2
        assert len(await running) == 8 and capacity.running == 0

    run(release_root, tmp_path, story)
