"""Circuit breaker around a part that may be down, slow or wrong, with a deadline and a bound on calls in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")

LAG_S = 0.02  # by which a timer may be late before the event loop, not the part, is what was slow

log = logging.getLogger("newfound.serving.breaker")


class State(IntEnum):
    """Of a breaker; the numbers are what `/metrics` shows."""

    CLOSED = 0
    TRYING = 1
    OPEN = 2


class Unavailable(Exception):
    """A part did not answer.

    Args:
        part: its name.
        why: `open` (the breaker is open), `busy`, `deadline`, or `error`.
    """

    def __init__(self, part: str, why: str) -> None:
        self.part, self.why = part, why
        super().__init__(f"{part}: {why}")


class CircuitBreaker:
    """Bounds calls of one part in number and time, and stops them while it fails.

    After `failures` failed calls in a row the breaker opens for `open_ms`; then one trial call goes through, and the
    others are refused until it has returned, or for `open_ms`: then the next is a trial as well, so that a part which
    has come back is not waited for as long as the trial that it swallowed before. A trial has the part's own time: its
    caller waits no longer than its request allows, and the trial goes on in the background. Otherwise clients with
    short deadlines would keep an open breaker open.

    Args:
        part: its name, for metrics.
        in_flight: most calls at a time.
        failures: failed calls in a row that open the breaker.
        open_ms: how long it stays open.
        patience_ms: what the part may take. A call that a request's deadline gave less time proves nothing when it
            runs out; otherwise impatient clients would open the breaker for all.
        passes: exceptions that are an answer, not a failure.
    """

    def __init__(
        self,
        part: str,
        in_flight: int,
        failures: int,
        open_ms: float,
        patience_ms: float,
        passes: tuple[type[Exception], ...] = (),
    ) -> None:
        self.part, self.in_flight, self.failures, self.passes = part, in_flight, failures, passes
        self.open_s, self.patience_s = open_ms / 1000, patience_ms / 1000
        self.state = State.CLOSED
        self.running = 0
        self._failed = 0
        self._retry_at = 0.0
        self._trials: set[asyncio.Task[Any]] = set()
        self.outcomes: Callable[[str], None] = lambda outcome: None

    async def call(self, make: Callable[[float], Awaitable[T]], seconds: float) -> T:
        """Awaits what `make` returns, for at most `seconds` and at most the part's own patience.

        Args:
            make: makes the call; it is told how many seconds the call has.
            seconds: that the caller waits.

        Raises:
            Unavailable: there is no answer; whatever went wrong is counted, not passed on.
        """
        self._admit(seconds)
        if self.state is not State.TRYING:
            return await self._run(make, min(seconds, self.patience_s), fair=seconds >= self.patience_s)
        trial = asyncio.create_task(self._run(make, self.patience_s, fair=True, trial=True))
        self._trials.add(trial)
        trial.add_done_callback(self._tried)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(trial)
        except TimeoutError:
            raise Unavailable(self.part, "deadline") from None

    async def _run(
        self, make: Callable[[float], Awaitable[T]], seconds: float, *, fair: bool, trial: bool = False
    ) -> T:
        """One call; running out of `seconds` is a failure where they were `fair`."""
        self.running += 1
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await make(seconds)
        except TimeoutError:
            # Where the loop was busy with other requests, an answer may have come in time and not been looked at.
            if trial or (fair and loop.time() < until + LAG_S):
                self._fail(TimeoutError(), trial)
            self.outcomes("deadline")
            raise Unavailable(self.part, "deadline") from None
        except self.passes:
            self._succeed(trial)
            self.outcomes("refused")
            raise
        except Exception as error:
            self._fail(error, trial)
            self.outcomes("error")
            raise Unavailable(self.part, "error") from None
        finally:
            self.running -= 1
        self._succeed(trial)
        self.outcomes("ok")
        return answer

    def _tried(self, trial: asyncio.Task[Any]) -> None:
        self._trials.discard(trial)
        if not trial.cancelled():
            trial.exception()  # retrieved: the caller was told, or has gone
        else:
            self._fail(None, trial=True)

    def _admit(self, seconds: float) -> None:
        why = None
        now = asyncio.get_running_loop().time()
        if self.state is not State.CLOSED and now < self._retry_at:
            why = "open"
        elif self.running >= self.in_flight:
            why = "busy"
        elif seconds <= 0:
            why = "deadline"
        if why is not None:
            self.outcomes(why)
            raise Unavailable(self.part, why)
        if self.state is not State.CLOSED:
            self.state, self._retry_at = State.TRYING, now + self.open_s

    def _succeed(self, trial: bool) -> None:
        if self.state is not State.CLOSED:
            if not trial:
                return  # it began before the breaker opened
            log.warning("%s: breaker closed", self.part)
        self.state, self._failed = State.CLOSED, 0

    def _fail(self, error: Exception | None, trial: bool) -> None:
        if trial:
            if self.state is State.CLOSED or self._trials - {asyncio.current_task()}:
                return  # another trial has told, or will tell
        elif self.state is not State.CLOSED:
            return  # it began before the breaker opened, and says nothing new
        self._failed += 1
        if self.state is not State.CLOSED or self._failed >= self.failures:
            if self.state is State.CLOSED:
                log.warning(
                    "%s: breaker open, %d calls in a row failed (%s)", self.part, self._failed, type(error).__name__
                )
            self.state = State.OPEN
            self._retry_at = asyncio.get_running_loop().time() + self.open_s
