"""Circuit breakers: deadlines, bounds, states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serving.circuit_breaker import CircuitBreaker, State, Unavailable


class Passed(Exception):
    """An answer in the form of an exception."""


def breaker(**changes: object) -> CircuitBreaker:
    settings = {"in_flight": 2, "failures": 3, "open_ms": 50, "patience_ms": 100, "passes": (Passed,)}
    return CircuitBreaker("part", **{**settings, **changes})  # type: ignore[arg-type]


async def fine() -> str:
    return "fine"


async def broken() -> str:
    raise ValueError("a secret of the part")


async def slow() -> str:
    await asyncio.sleep(5)
    return "late"


async def outcome(one: CircuitBreaker, make: Callable[[], Awaitable[str]], seconds: float = 1.0) -> str:
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


def test_only_one_call_tries():
    async def story() -> None:
        one = breaker(failures=1)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        trial = asyncio.create_task(outcome(one, slow, 0.2))
        await asyncio.sleep(0)
        assert one.state is State.TRYING and await outcome(one, fine) == "open"
        assert await trial == "deadline" and one.state is State.OPEN

    run(story)


def test_a_trial_that_is_cancelled_is_no_success():
    async def story() -> None:
        one = breaker(failures=1)
        await outcome(one, broken)
        await asyncio.sleep(0.06)
        trial = asyncio.create_task(outcome(one, slow))
        await asyncio.sleep(0)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert one.state is State.OPEN and one.running == 0

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
    async def answer() -> str:
        raise Passed

    async def story() -> None:
        one = breaker(failures=1)
        for _ in range(3):
            with pytest.raises(Passed):
                await one.call(answer, 1)
        assert one.state is State.CLOSED

    run(story)
