"""The circuit breaker against every order of calls, answers, cancellations and passing time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.circuit_breaker import CircuitBreaker, State, Unavailable
from tests.serving.virtual_time import VirtualTimeLoop

IN_FLIGHT, FAILURES, OPEN_S = 3, 2, 1.0


class Passed(Exception):
    """An answer in the form of an exception."""


@dataclass
class Call:
    """One caller."""

    task: asyncio.Task[str]
    began: float
    seconds: float


class BreakerStates(RuleBasedStateMachine):
    """Callers of one part that answers as each call says."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.calls: list[Call] = []
        self.inside = 0
        self.outcomes: list[str] = []

    @initialize(patience_s=st.sampled_from([0.2, 3.0]))
    def begin(self, patience_s: float) -> None:
        """A part that may take less time than the breaker stays open, or more."""
        self.patience_s = patience_s
        self.breaker = CircuitBreaker("part", IN_FLIGHT, FAILURES, OPEN_S * 1000, patience_s * 1000, (Passed,))
        self.breaker.outcomes = self.outcomes.append

    def teardown(self) -> None:
        for call in self.calls:
            call.task.cancel()
        self.pass_time(10.0)
        assert self.inside == 0 == self.breaker.running
        self.loop.close()

    @rule(
        seconds=st.sampled_from([0.0, 0.01, 0.1, 0.5, 5.0]),
        takes=st.sampled_from([0.0, 0.05, 0.15, 0.5, 3.0]),
        kind=st.sampled_from(["ok", "error", "timeout", "pass"]),
    )
    def call(self, seconds: float, takes: float, kind: str) -> None:
        state, running, retry_at = self.breaker.state, self.breaker.running, self.breaker._retry_at
        entered = []

        async def part(told: float) -> str:
            entered.append(told)
            self.inside += 1
            try:
                await asyncio.sleep(takes)
                if kind == "ok":
                    return "ok"
                raise {"error": ValueError, "timeout": TimeoutError, "pass": Passed}[kind]
            finally:
                self.inside -= 1

        task = self.loop.create_task(self.caller(part, seconds))
        self.calls.append(Call(task, self.loop.time(), seconds))
        self.loop.run_until_complete(_turns())
        refused = state is not State.CLOSED and self.loop.time() < retry_at
        if refused or running >= IN_FLIGHT or seconds <= 0:
            assert not entered, "a refused call does not reach the part"
        else:
            (told,) = entered
            own = self.patience_s if state is not State.CLOSED else min(seconds, self.patience_s)
            assert told == own

    async def caller(self, part: object, seconds: float) -> str:
        began = self.loop.time()
        try:
            return await self.breaker.call(part, seconds)  # type: ignore[arg-type]
        except Unavailable as error:
            return error.why
        except Passed:
            return "pass"
        finally:
            assert self.loop.time() - began <= min(seconds, self.patience_s) + 1e-9, "nobody waits longer"

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.2, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for call in [one for one in self.calls if one.task.done()]:
            self.calls.remove(call)
            if not call.task.cancelled():
                assert call.task.result() in ("ok", "pass", "open", "busy", "deadline", "error")

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(min_value=0))
    def give_up(self, which: int) -> None:
        self.calls[which % len(self.calls)].task.cancel()
        self.loop.run_until_complete(_turns())

    @rule(seconds=st.sampled_from([0.001, 0.02]))
    def the_part_is_back_and_its_callers_are_impatient(self, seconds: float) -> None:
        """Whatever happened before, the breaker closes."""
        self.pass_time(5.0)

        async def part(told: float) -> str:
            await asyncio.sleep(0.1)
            return "ok"

        for _ in range(400):
            if self.breaker.state is State.CLOSED:
                return
            self.loop.run_until_complete(self.caller(part, seconds))
            self.loop.run_until_complete(asyncio.sleep(0.01))
        raise AssertionError("it stays open")

    @invariant()
    def bounds_hold(self) -> None:
        assert self.inside <= self.breaker.running <= IN_FLIGHT
        assert self.breaker.state is not State.TRYING or self.breaker._trials, "somebody is out to try"


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


TestBreakerStates = BreakerStates.TestCase
TestBreakerStates.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
