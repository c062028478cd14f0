"""What comes in one iteration of the loop is taken together, and nobody is answered with another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from newfound.recommend.slate import Offer
from serving.circuit_breaker import CircuitBreaker, State
from serving.explorer.ranker_calls import RankerCalls
from serving.explorer.ranker_client import NotLoaded, Rejected
from serving.together import MOST, Errands, Together, Waiting
from tests.serving.virtual_time import VirtualTimeLoop


def in_virtual_time(story: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story)


def test_what_comes_at_once_is_taken_in_order_in_portions_and_without_those_who_left() -> None:
    taken: list[list[int]] = []

    def take(waiting: Sequence[Waiting[int, int]]) -> None:
        taken.append([one.asked for one in waiting])
        for one in waiting:
            one.put(-one.asked)

    async def story() -> None:
        together = Together(take)
        answers = [together.ask(number) for number in range(MOST + 2)]
        answers[1].cancel()
        assert not taken
        assert await asyncio.gather(*answers[:1], *answers[2:]) == [0, *(-number for number in range(2, MOST + 2))]
        assert await together.ask(99) == -99

    in_virtual_time(story())
    assert taken == [[0, *range(2, MOST)], [MOST, MOST + 1], [99]]


def test_work_stops_when_the_last_who_waits_has_gone() -> None:
    async def story() -> tuple[bool, bool]:
        errands, ended = Errands(), []

        async def work(name: str) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(name)

        def take(waiting: Sequence[Waiting[str, None]]) -> None:
            errands.start(work("read"), waiting)

        together = Together(take)
        first, second = together.ask("a"), together.ask("b")
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(1)
        early = bool(ended)
        second.cancel()
        await asyncio.sleep(1)
        return early, bool(ended)

    assert in_virtual_time(story()) == (False, True)


class Ranker:
    """A client that answers as `reply` does, and remembers what came together."""

    def __init__(self, reply: Callable[[Sequence[dict[str, Any]]], Awaitable[list[Offer]]]) -> None:
        self.calls: list[list[str]] = []
        self.seconds: list[float] = []
        self._reply = reply

    def bodies(self, instances: Sequence[dict[str, Any]]) -> list[tuple[bytes, Sequence[dict[str, Any]]]]:
        return [(b"", instances)]

    async def rank(self, body: bytes, instances: Sequence[dict[str, Any]], ids: str, seconds: float) -> list[Offer]:
        self.calls.append([one["name"] for one in instances])
        self.seconds.append(seconds)
        return await self._reply(instances)


def calls(
    reply: Callable[[Sequence[dict[str, Any]]], Awaitable[list[Offer]]],
) -> tuple[Ranker, CircuitBreaker, RankerCalls]:
    ranker, breaker = Ranker(reply), CircuitBreaker("ranker", 64, 5, 1000, 2000, (NotLoaded, Rejected))
    return ranker, breaker, RankerCalls(ranker, breaker)  # type: ignore[arg-type]


def instance(name: str, release: str = "r1") -> dict[str, Any]:
    return {"name": name, "release": release}


def offer(name: str) -> Offer:
    return Offer([(name, 1.0)], {})


async def named(instances: Sequence[dict[str, Any]]) -> list[Offer]:
    await asyncio.sleep(0.01)
    return [offer(one["name"]) for one in instances]


def test_requests_of_one_moment_share_a_call_and_each_gets_its_own_answer() -> None:
    async def story() -> None:
        ranker, _, together = calls(named)
        asked = [together.rank([instance(f"a{n}"), instance(f"b{n}")], f"id{n}", 1.0) for n in range(10)]
        answers = await asyncio.gather(*asked)
        assert answers == [[offer(f"a{n}"), offer(f"b{n}")] for n in range(10)]
        assert [len(call) for call in ranker.calls] == [MOST, 20 - MOST]
        await together.rank([instance("c")], "id", 1.0)
        assert ranker.calls[-1] == ["c"]

    in_virtual_time(story())


def test_a_call_is_about_one_release_and_the_other_is_told_alone_that_it_is_not_loaded() -> None:
    async def reply(instances: Sequence[dict[str, Any]]) -> list[Offer]:
        if instances[0]["release"] == "old":
            raise NotLoaded(["new"])
        return await named(instances)

    async def story() -> None:
        _, breaker, together = calls(reply)
        old = together.rank([instance("a", "old"), instance("b", "old")], "1", 1.0)
        found = await asyncio.gather(old, together.rank([instance("c", "new")], "2", 1.0), return_exceptions=True)
        assert isinstance(found[0], NotLoaded) and found[0].loaded == ("new",)
        assert found[1] == [offer("c")] and breaker.state is State.CLOSED

    in_virtual_time(story())


def test_one_that_the_ranker_refuses_costs_the_others_nothing() -> None:
    async def reply(instances: Sequence[dict[str, Any]]) -> list[Offer]:
        if any(one["name"] == "bad" for one in instances):
            raise Rejected(400)
        return await named(instances)

    async def story() -> None:
        ranker, _, together = calls(reply)
        found = await asyncio.gather(*(together.rank([instance(name)], name, 1.0) for name in ("a", "bad", "b")))
        assert found == [[offer("a")], [None], [offer("b")]]
        assert ranker.calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]

    in_virtual_time(story())


def test_each_waits_as_long_as_it_may_and_the_call_as_long_as_the_most_patient() -> None:
    async def slow(instances: Sequence[dict[str, Any]]) -> list[Offer]:
        await asyncio.sleep(0.5)
        return [offer(one["name"]) for one in instances]

    async def story() -> None:
        loop = asyncio.get_running_loop()
        ranker, _, together = calls(slow)

        async def timed(name: str, seconds: float) -> tuple[list[Offer | None], float]:
            began = loop.time()
            return await together.rank([instance(name)], name, seconds), loop.time() - began

        hasty, patient, none = await asyncio.gather(timed("hasty", 0.1), timed("patient", 0.9), timed("late", 0.0))
        assert hasty == ([None], pytest.approx(0.1)) and none[0] == [None]
        assert patient == ([offer("patient")], pytest.approx(0.5))
        assert ranker.seconds == [pytest.approx(0.9)]

    in_virtual_time(story())


def test_a_ranker_that_is_away_leaves_all_without_an_answer_and_opens_the_breaker_once_for_each_call() -> None:
    async def away(instances: Sequence[dict[str, Any]]) -> list[Offer]:
        raise ConnectionError

    async def story() -> None:
        ranker, breaker, together = calls(away)
        for number in range(6):
            found = await asyncio.gather(*(together.rank([instance(name)], name, 1.0) for name in "abc"))
            assert found == [[None]] * 3
            assert (breaker.state is State.OPEN) == (number >= 4)
        assert len(ranker.calls) == 5

    in_virtual_time(story())
