"""Circuit breakers: deadlines, bounds, states."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from serving.circuit_breaker import CircuitBreaker, State, Unavailable


class Passed(Exception):
    """An answer in the form of an exception."""


def breaker(**changes: object) -> CircuitBreaker:
    settings = {"in_flight": 2, "failures": 3, "open_ms": 50, "patience_ms": 100, "passes": (Passed,)}
    return CircuitBreaker("part", **{**settings, **changes})  # type: ignore[arg-type]


async def fine(seconds: float) -> str:
    return "fine"


async def broken(seconds: float) -> str:
    raise ValueError("a secret of the part")


async def slow(seconds: float) -> str:
    await asyncio.sleep(5)
    return "late"


async def outcome(one: CircuitBreaker, make: Callable[[float], Awaitable[str]], seconds: float = 1.0) -> str:
    try:
        return await one.call(make, seconds)
    except Unavailable as error:
        return error.why


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())


def test_failures_in_a_row_open_it_and_a_trial_closes_it():
    async def story() -> None:
        one = breaker()
        assert [await outcome(one, broken) for _ in range(2)] == ["error", "error"]
        assert await outcome(one, fine) == "fine"
        assert [await outcome(one, broken) for _ in range(3)] == ["error"] * 3
        assert one.state is State.OPEN and await outcome(one, fine) == "open"
        await asyncio.sleep(0.06)
        assert await outcome(one, broken) == "error" and one.state is State.OPEN
        await asyncio.sleep(0.06)
        assert await outcome(one, fine) == "fine" and one.state is State.CLOSED

    run(story)


def test_a_busy_event_loop_is_no_failure_of_the_part():
    async def answers_soon(seconds: float) -> str:
        await asyncio.sleep(0.01)
        return "fine"

    async def story() -> None:
        one = breaker(failures=2, patience_ms=30, in_flight=8)
        calls = [asyncio.create_task(outcome(one, answers_soon)) for _ in range(4)]
        await asyncio.sleep(0)
        time.sleep(0.1)  # what a burst of other requests does to the loop
        await asyncio.gather(*calls)
        assert one.state is State.CLOSED
        assert [await outcome(one, slow) for _ in range(2)] == ["deadline"] * 2 and one.state is State.OPEN

    run(story)


def test_only_one_call_tries():
    async def story() -> None:
        one = breaker(failures=1)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        trial = asyncio.create_task(outcome(one, slow, 0.2))
        await asyncio.sleep(0.01)
        assert one.state is State.TRYING and await outcome(one, fine) == "open"
        assert await trial == "deadline" and one.state is State.OPEN

    run(story)


def test_a_trial_that_hangs_does_not_keep_a_part_away_that_is_back():
    async def story() -> None:
        one = breaker(failures=1, patience_ms=10_000)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        assert await outcome(one, slow, 0.01) == "deadline" and one.state is State.TRYING
        assert await outcome(one, fine) == "open"
        await asyncio.sleep(0.06)
        assert await outcome(one, fine) == "fine" and one.state is State.CLOSED
        assert one.running == 1, "the first trial is still out"

    run(story)


def test_of_two_trials_the_one_that_fails_says_nothing_while_the_other_is_out():
    async def story() -> None:
        one = breaker(failures=1, patience_ms=10_000, in_flight=3)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        assert await outcome(one, slow, 0.01) == "deadline"
        await asyncio.sleep(0.06)
        assert await outcome(one, broken) == "error" and one.state is State.TRYING
        await asyncio.sleep(0.06)
        assert await outcome(one, fine) == "fine" and one.state is State.CLOSED

    run(story)


def test_a_trial_goes_on_where_its_caller_has_gone():
    async def story() -> None:
        one = breaker(failures=1)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        trial = asyncio.create_task(outcome(one, slow))
        await asyncio.sleep(0)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert one.state is State.TRYING and one.running == 1
        await asyncio.sleep(0.15)
        assert one.state is State.OPEN and one.running == 0

    run(story)


def test_clients_with_short_deadlines_do_not_keep_it_open():
    """The part is back, and takes longer than any of them waits."""

    async def late(seconds: float) -> str:
        await asyncio.sleep(0.03)
        return "late"

    async def story() -> None:
        one = breaker(failures=1)
        await outcome(one, broken)
        until = asyncio.get_running_loop().time() + 2
        while one.state is not State.CLOSED:
            assert asyncio.get_running_loop().time() < until, "it stays open"
            assert await outcome(one, late, 0.005) in ("open", "deadline")
            await asyncio.sleep(0.005)
        assert await outcome(one, late, 0.5) == "late"

    run(story)


def test_a_call_from_before_it_opened_neither_closes_it_nor_keeps_it_open():
    async def story() -> None:
        one = breaker(failures=1, open_ms=30, in_flight=4)
        release = asyncio.Event()

        async def waiting(seconds: float) -> str:
            await release.wait()
            return "old"

        old = asyncio.create_task(outcome(one, waiting))
        await asyncio.sleep(0)
        await outcome(one, broken)
        release.set()
        assert await old == "old" and one.state is State.OPEN
        await asyncio.sleep(0.04)
        assert await outcome(one, fine) == "fine" and one.state is State.CLOSED

    run(story)


def test_a_call_is_told_how_long_it_has():
    async def told(seconds: float) -> str:
        return f"{seconds:g}"

    async def story() -> None:
        one = breaker(failures=1)
        assert await outcome(one, told, 0.05) == "0.05" and await outcome(one, told, 9) == "0.1"
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        assert await outcome(one, told, 0.05) == "0.1", "a trial has the part's own time"

    run(story)


def test_impatient_requests_do_not_open_it_for_all():
    async def story() -> None:
        one = breaker()
        assert [await outcome(one, slow, 0.005) for _ in range(6)] == ["deadline"] * 6
        assert one.state is State.CLOSED
        assert [await outcome(one, slow, 1.0) for _ in range(3)] == ["deadline"] * 3
        assert one.state is State.OPEN

    run(story)


def test_it_bounds_what_is_in_flight_and_what_has_no_time_is_not_tried():
    async def story() -> None:
        one = breaker()
        calls = [asyncio.create_task(outcome(one, slow, 0.05)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await outcome(one, fine) == "busy"
        await asyncio.gather(*calls)
        assert await outcome(one, fine, 0) == "deadline" and await outcome(one, fine) == "fine"

    run(story)


def test_answers_in_the_form_of_exceptions_are_answers():
    async def answer(seconds: float) -> str:
        raise Passed

    async def story() -> None:
        one = breaker(failures=1)
        for _ in range(3):
            with pytest.raises(Passed):
                await one.call(answer, 1)
        assert one.state is State.CLOSED

    run(story)
