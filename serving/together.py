"""Batches of what comes in one iteration of the event loop; nothing waits for more to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

MOST: Final = 16  # that are taken at a time; the first one waits for the last one's answer

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Waiting(Generic[A, R]):
    """Something asked for, and where its answer is put."""

    asked: A
    answer: asyncio.Future[R]

    def put(self, answer: R | Exception) -> None:
        """Answers, unless whoever asked has gone."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Together(Generic[A, R]):
    """Collects what is asked for until the loop's next iteration.

    Args:
        take: takes `MOST` at a time, in the order in which they were asked for; it must see to every answer.
    """

    def __init__(self, take: Callable[[Sequence[Waiting[A, R]]], None]) -> None:
        self._take = take
        self._waiting: list[Waiting[A, R]] = []

    def ask(self, asked: A) -> asyncio.Future[R]:
        """Puts something in line. Cancel the answer to take it out again."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._run)
        one: Waiting[A, R] = Waiting(asked, loop.create_future())
        self._waiting.append(one)
        return one.answer

    def _run(self) -> None:
        some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        left = [one for one in some if not one.answer.done()]
        if left:
            self._take(left)


class Errands:
    """Work that answers several who wait together, until the last of them has gone."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], waiting: Sequence[Waiting[A, R]]) -> None:
        """Starts the work, and stops it once nobody waits for it any more."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        left = len(waiting)

        def gone(_: asyncio.Future[R]) -> None:
            nonlocal left
            left -= 1
            if not left:
                task.cancel()

        for one in waiting:
            one.answer.add_done_callback(gone)
