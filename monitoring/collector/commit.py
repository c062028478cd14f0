"""Group commit: requests that arrive while a transaction is being written share the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, StatementError

from monitoring.store.batches import INVALID, Batch, Refusal, Written
from monitoring.store.database import Store

log: Final = logging.getLogger("newfound.monitoring.collector")
_UNSTORABLE: Final = Refusal(INVALID, [{"field": "(body)", "problem": "holds something that the store cannot keep"}])


class Busy(Exception):
    """The queue is full, or the store does not answer; the sender tries again later."""


@dataclass
class _Request:
    batch: Batch
    done: asyncio.Future[Refusal | None]
    since: float


class GroupCommit:
    """Writes batches in transactions as large as the load makes them.

    Args:
        store: where to.
        commit_events: at most this many events a transaction (one batch is never split).
        queue_events: at most this many events waiting.
        seconds: how long a batch may wait for its commit.
        written: called after every commit with what it did, its batches and its seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        commit_events: int,
        queue_events: int,
        seconds: float,
        written: Callable[[Written, Sequence[Batch], float], None],
    ) -> None:
        self._store, self._written, self._seconds = store, written, seconds
        self._commit_events, self._queue_events = commit_events, queue_events
        self._waiting: deque[_Request] = deque()
        self._writing: list[_Request] = []
        self._awake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "commit")
        self._task: asyncio.Task[None] | None = None
        self.waiting_events = 0
        self.last_commit = 0.0

    def start(self) -> None:
        """Starts writing; call it inside the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Writes what is waiting, then stops; gives up on what the store does not take in time."""
        until = time.monotonic() + self._seconds
        while self.waiting_events and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=not self.waiting_events, cancel_futures=True)

    def stalled(self) -> float:
        """Seconds that the oldest request has been waiting; 0 where none waits."""
        oldest = [request.since for request in (*self._writing, *self._waiting)]
        return time.monotonic() - min(oldest) if oldest else 0.0

    async def put(self, batch: Batch) -> Refusal | None:
        """Returns once the batch is on disk, or refused.

        Raises:
            Busy: it is neither; nothing was acknowledged, though it may still be written.
        """
        if self.waiting_events + len(batch.events) > self._queue_events:
            raise Busy("the queue is full")
        request = _Request(batch, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(request)
        self.waiting_events += len(batch.events)
        self._awake.set()
        try:
            async with asyncio.timeout(self._seconds):
                return await request.done
        except TimeoutError:  # the future is cancelled: the request is not written if it still waits
            raise Busy(f"the store took longer than {self._seconds:g} s") from None

    async def _run(self) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                self._writing = self._take()
                try:
                    await self._commit(self._writing)
                finally:
                    self.waiting_events -= sum(len(request.batch.events) for request in self._writing)
                    self._writing = []

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].batch.events) <= self._commit_events):
            request = self._waiting.popleft()
            if request.done.done():  # its sender was told to come back
                self.waiting_events -= len(request.batch.events)
                continue
            taken.append(request)
            size += len(request.batch.events)
        return taken

    async def _commit(self, group: list[_Request]) -> None:
        if not group:
            return
        batches = [request.batch for request in group]
        started = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            written = await loop.run_in_executor(self._thread, self._store.write_batches, batches)
        except Exception as error:  # the drivers' errors differ; none of them may end the loop
            log.error("commit of %d requests failed: %s", len(group), type(error).__name__)
            if not _is_of_content(error):
                for request in group:
                    _fail(request)
            elif len(group) == 1:  # it would fail for ever, and hold its sender up
                _resolve(group[0], _UNSTORABLE)
            else:  # one request must not cost the others theirs
                for request in group:
                    await self._commit([request])
        else:
            self.last_commit = time.monotonic()
            self._written(written, batches, time.perf_counter() - started)
            for index, request in enumerate(group):
                _resolve(request, written.refused.get(index))


def _is_of_content(error: Exception) -> bool:
    """Whether the rows are to blame, and not the connection, the server or its disk."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError)
    return isinstance(error, StatementError | ValueError | OverflowError | TypeError)


def _fail(request: _Request) -> None:
    if not request.done.done():
        request.done.set_exception(Busy("the store does not answer"))


def _resolve(request: _Request, refusal: Refusal | None) -> None:
    if not request.done.done():  # the sender waits no longer
        request.done.set_result(refusal)
