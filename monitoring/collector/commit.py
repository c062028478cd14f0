"""Group commit: requests that arrive while a transaction is being written share the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from monitoring.store.database import Store, Stored, Written

log: Final = logging.getLogger("newfound.monitoring.collector")


class Busy(Exception):
    """The queue is full, or the store does not answer; the sender tries again later."""


class GroupCommit:
    """Writes events in transactions as large as the load makes them.

    Args:
        store: where to.
        commit_events: at most this many events a transaction (one request is never split).
        queue_events: at most this many events waiting.
        written: called after every commit with what it did, its size and its seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        commit_events: int,
        queue_events: int,
        written: Callable[[Written, Sequence[Stored], float], None],
    ) -> None:
        self._store, self._written = store, written
        self._commit_events, self._queue_events = commit_events, queue_events
        self._waiting: list[tuple[Sequence[Stored], asyncio.Future[None]]] = []
        self._awake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "commit")
        self._task: asyncio.Task[None] | None = None
        self.waiting_events = 0

    def start(self) -> None:
        """Starts writing; call it inside the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Writes what is waiting, then stops."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown()

    async def put(self, events: Sequence[Stored]) -> None:
        """Returns once the events are on disk.

        Raises:
            Busy: they are not; nothing was acknowledged.
        """
        if self.waiting_events + len(events) > self._queue_events:
            raise Busy("the queue is full")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, done))
        self.waiting_events += len(events)
        self._awake.set()
        await done

    async def _run(self) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                await self._commit(self._take())

    def _take(self) -> list[tuple[Sequence[Stored], asyncio.Future[None]]]:
        taken, size = [], 0
        while self._waiting and (not taken or size + len(self._waiting[0][0]) <= self._commit_events):
            taken.append(self._waiting.pop(0))
            size += len(taken[-1][0])
        return taken

    async def _commit(self, group: list[tuple[Sequence[Stored], asyncio.Future[None]]]) -> None:
        events = [event for some, _ in group for event in some]
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            written = await loop.run_in_executor(self._thread, self._store.write, events)
        except Exception as error:  # the drivers' errors differ; none of them may end the loop
            log.error("commit of %d events failed: %s", len(events), type(error).__name__)
            if len(group) > 1:  # one request's events must not cost the others theirs
                for one in group:
                    self.waiting_events += len(one[0])
                    await self._commit([one])
            else:
                _resolve(group, Busy("the store does not answer"))
        else:
            self._written(written, events, time.perf_counter() - started)
            _resolve(group, None)
        self.waiting_events -= len(events)


def _resolve(group: list[tuple[Sequence[Stored], asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in group:
        if done.done():  # the client went away
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
