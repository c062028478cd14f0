"""Sends events to the collector in the background, and keeps them on disk while it does not answer.

No request waits for it. Events wait in memory for the next batch. A batch that the collector does not take goes to the
spool on disk and is sent again, oldest first, once the collector is back; when the spool is full its oldest batch goes,
and is counted. Where the disk takes nothing either, events wait in memory. A batch that is refused is halved until the
events at fault are found: those are set aside in the spool's folder `refused`, and counted; the others arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from newfound.events import BATCH
from serving.explorer.spool import Spool
from serving.metrics import DROPPED, OUTBOX, SENT, SPOOL, SPOOL_FAILED
from serving.settings import ServingConfig

log = logging.getLogger("newfound.serving.outbox")

REFUSALS: Final = (400, 409, 413, 422)
AHEAD_S: Final = 60.0
"""Events later than the collector's clock by more wait until it has caught up: the fault is a clock's, not theirs."""
STREAK: Final = 20
SLOW_S: Final = 0.05
"""After `STREAK` events refused in a row, requests follow each other by no less: everything may be refused."""
LONGEST_PAUSE_S: Final = 2.0
"""A collector that is back may answer the first try with what it had left to say, and is tried once more."""
DISK_PAUSE_S: Final = 1.0
"""After a write that failed, and while the collector is away, before the disk is tried again."""


class Outcome(Enum):
    """Fate of a batch."""

    TAKEN = "taken"  # or set aside, event by event
    LATER = "later"  # the collector's clock is behind the events'
    AWAY = "away"  # the collector does not answer


class Outbox:
    """A sender in the background.

    Args:
        url: the collector's endpoint; None drops everything silently, for those who do not want events.
        spool: folder on disk; it may hold what an earlier process left, and other processes may use it.
        config: bounds.
        token: bearer token for the collector.
    """

    def __init__(self, url: str | None, spool: Path, config: ServingConfig, token: str | None = None) -> None:
        self.url, self.config = url, config
        self.spool = Spool(spool, config.spool_bytes)
        self.refused = Spool(spool / "refused", config.refused_bytes)
        self._headers = {"Content-Type": BATCH, **({"Authorization": f"Bearer {token}"} if token else {})}
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._streak = 0
        self._disk_retry_at = 0.0
        self._closing = False

    def put(self, envelope: dict[str, Any]) -> None:
        """Takes an event as a structured CloudEvent; drops and counts it where too many wait already."""
        if self.url is None:
            return
        if len(self._waiting) >= self.config.outbox_events:
            DROPPED.labels("memory").inc()
            return
        self._waiting.append(orjson.dumps(envelope))
        if len(self._waiting) >= self.config.outbox_batch:
            self._wake.set()

    async def open(self) -> None:
        """Starts the sender."""
        if self.url is None:
            return
        for spool in (self.spool, self.refused):
            try:
                await asyncio.to_thread(spool.open)
            except OSError as error:
                log.error("the spool cannot be opened: %s", error)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.config.outbox_timeout_ms / 1000))
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Sends what waits, spools what cannot be sent, counts what cannot be spooled, and ends."""
        if self._task is None or self._session is None:
            return
        # Not cancelled: a batch that is being written to disk would be written twice.
        self._closing = True
        self._wake.set()
        await asyncio.gather(self._task, return_exceptions=True)
        away = False
        while self._waiting:
            events = self._take()
            if not away:
                outcome, events = await self._send(events)
                away = outcome is Outcome.AWAY
            if events and not await self._store(events):
                DROPPED.labels("disk").inc(len(events))
        await self._session.close()

    def _take(self) -> list[bytes]:
        size = min(len(self._waiting), self.config.outbox_batch)
        return [self._waiting.popleft() for _ in range(size)]

    async def _run(self) -> None:
        pause = wait = self.config.outbox_wait_ms / 1000
        retry_at, loop = 0.0, asyncio.get_running_loop()
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            self._wake.clear()
            OUTBOX.set(len(self._waiting))
            away = loop.time() < retry_at
            try:
                well = await self._round(away)
            except Exception:
                log.exception("a round of the outbox failed")
                well = False
            if away:
                continue
            if well:
                pause = wait
            else:
                pause = min(pause * 2, LONGEST_PAUSE_S)
                retry_at = loop.time() + pause

    async def _round(self, away: bool) -> bool:
        """Sends what waits in memory and on disk, or only spools it while the collector is away.

        Returns:
            Whether everything was sent, or nothing was to be.
        """
        well = True
        if away and asyncio.get_running_loop().time() < self._disk_retry_at:
            return False
        while self._waiting:
            events = self._take()
            try:
                outcome, left = (Outcome.AWAY, events) if away else await self._send(events)
            except BaseException:
                self._put_back(events)
                raise
            well = well and outcome is Outcome.TAKEN
            away = away or outcome is Outcome.AWAY
            if left and not await self._store(left):
                self._put_back(left)  # the disk takes nothing: they wait in memory
                return False
        if away or self._closing:
            return well
        return await self._send_spooled() and well

    def _put_back(self, events: Sequence[bytes]) -> None:
        """Events wait in memory again, first in line; the latest are dropped and counted where they are too many."""
        self._waiting.extendleft(reversed(events))
        while len(self._waiting) > self.config.outbox_events:
            self._waiting.pop()
            DROPPED.labels("memory").inc()

    # --- the collector ----------------------------------------------------------------------------------------------

    async def _send(self, events: list[bytes]) -> tuple[Outcome, list[bytes]]:
        """Sends a batch; of one that is refused, every event that is not at fault arrives.

        Returns:
            What became of it, and the events that are still to be sent.
        """
        if self._streak > STREAK:
            await asyncio.sleep(SLOW_S)
        status, clock, problem = await self._post(b"[" + b",".join(events) + b"]")
        if status < 300:
            SENT.inc(len(events))
            self._streak = 0
            return Outcome.TAKEN, []
        if status not in REFUSALS:
            return Outcome.AWAY, events
        if clock is not None and all(_is_ahead(event, clock) for event in events):
            log.error("the collector's clock is behind the events': %d wait", len(events))
            return Outcome.LATER, events
        if len(events) == 1:
            await self._set_aside(events[0], status, problem)
            return Outcome.TAKEN, []
        half = len(events) // 2
        first, left = await self._send(events[:half])
        if first is Outcome.AWAY:
            return first, left + events[half:]
        second, rest = await self._send(events[half:])
        return (second if first is Outcome.TAKEN else first), left + rest

    async def _post(self, body: bytes) -> tuple[int, datetime | None, str]:
        """Status, the collector's clock, and what it says of a refusal; status 599 where there is no answer."""
        assert self._session is not None and self.url is not None
        try:
            async with self._session.post(self.url, data=body, headers=self._headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 599, None, ""
        clock = None
        with contextlib.suppress(KeyError, ValueError):
            clock = parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
        return response.status, clock, content[:500].decode("utf-8", "replace")

    async def _set_aside(self, event: bytes, status: int, problem: str) -> None:
        """Keeps a refused event out of the way, for a person to look at."""
        self._streak += 1
        record = orjson.dumps({"status": status, "problem": problem, "event": orjson.Fragment(event)})
        try:
            await asyncio.to_thread(self.refused.put, [record])
        except OSError as error:
            log.error("a refused event cannot be set aside: %s", error)
        DROPPED.labels("refused").inc()
        log.error("the collector refuses an event: %d", status)

    # --- disk -------------------------------------------------------------------------------------------------------

    async def _store(self, events: Sequence[bytes]) -> bool:
        """Spools a batch; whether the disk took it."""
        try:
            removed = await asyncio.to_thread(self.spool.put, events)
        except OSError as error:
            SPOOL_FAILED.inc()
            self._disk_retry_at = asyncio.get_running_loop().time() + DISK_PAUSE_S
            log.error("the spool cannot be written: %s", error)
            return False
        if removed:
            DROPPED.labels("disk").inc(removed)
        SPOOL.set(self.spool.bytes)
        return True

    async def _send_spooled(self) -> bool:
        """Sends what lies on disk, oldest first; whether nothing of it is left."""
        well = True
        for file in await asyncio.to_thread(self.spool.files):
            if self._closing:
                return well
            try:
                events = await asyncio.to_thread(self.spool.read, file)
            except OSError as error:  # of the disk: it is tried again
                log.error("%s cannot be read: %s", file.name, error)
                well = False
                continue
            except ValueError:
                well = await self._put_aside(file) and well
                continue
            if not events:  # another process has sent it
                continue
            outcome, left = await self._send(events)
            well = well and outcome is Outcome.TAKEN
            if not left or (len(left) < len(events) and await self._store(left)):
                well = await self._forget(file) and well
            if outcome is Outcome.AWAY:
                return False
        await asyncio.to_thread(self.spool.measure)
        SPOOL.set(self.spool.bytes)
        return well

    async def _put_aside(self, file: Path) -> bool:
        """Renames what is no batch of events; whether the disk took it."""
        try:
            await asyncio.to_thread(file.rename, file.with_suffix(".broken"))
        except OSError as error:  # it is tried again, and holds up no other batch
            log.error("%s is no batch of events, and cannot be renamed: %s", file.name, error)
            return False
        DROPPED.labels("broken").inc()
        log.error("%s is no batch of events: renamed", file.name)
        return True

    async def _forget(self, file: Path) -> bool:
        """Removes a batch that was sent; whether the disk took it. The collector knows what is sent once more."""
        try:
            await asyncio.to_thread(self.spool.remove, file)
        except OSError as error:
            log.error("%s was sent, and cannot be removed: %s", file.name, error)
            return False
        return True


def _is_ahead(event: bytes, clock: datetime) -> bool:
    """Whether an event lies in the collector's future."""
    try:
        at = datetime.fromisoformat(orjson.loads(event)["time"])
        return (at - clock).total_seconds() > AHEAD_S
    except (ValueError, KeyError, TypeError):
        return False
