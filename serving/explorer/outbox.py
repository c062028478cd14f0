"""Sends events to the collector in the background, and keeps them on disk while it does not answer.

No request waits for it. Events wait in memory for the next batch. A batch that the collector does not take is appended
to the spool, a folder of numbered files, each a whole CloudEvents batch; they are sent again, oldest first, once the
collector is back. When the spool is full its oldest file goes, and is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from newfound.events import BATCH
from newfound.files import new_file
from serving.metrics import DROPPED, OUTBOX, SENT, SPOOL
from serving.settings import ServingConfig

log = logging.getLogger("newfound.serving.outbox")


class Outbox:
    """A sender in the background.

    Args:
        url: the collector's endpoint; None drops everything silently, for those who do not want events.
        spool: folder on disk; it may hold what an earlier process left.
        config: bounds.
        token: bearer token for the collector.
    """

    def __init__(self, url: str | None, spool: Path, config: ServingConfig, token: str | None = None) -> None:
        self.url, self.spool, self.config = url, spool, config
        self._headers = {"Content-Type": BATCH, **({"Authorization": f"Bearer {token}"} if token else {})}
        self._waiting: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._number = 0
        self._closing = False

    def put(self, envelope: dict[str, Any]) -> None:
        """Takes an event as a structured CloudEvent; drops and counts it where too many wait already."""
        if self.url is None:
            return
        if len(self._waiting) >= self.config.outbox_events:
            DROPPED.labels("memory").inc()
            return
        self._waiting.append(envelope)
        if len(self._waiting) >= self.config.outbox_batch:
            self._wake.set()

    async def open(self) -> None:
        """Starts the sender."""
        if self.url is None:
            return
        self.spool.mkdir(parents=True, exist_ok=True)
        files = self._files()
        self._number = int(files[-1].stem) + 1 if files else 0
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.config.outbox_timeout_ms / 1000))
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Sends what waits, spools what cannot be sent, and ends."""
        if self._task is None or self._session is None:
            return
        # Not cancelled: a batch that is being written to disk would be written twice.
        self._closing = True
        self._wake.set()
        await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting:
            await self._deliver(self._take())
        await self._session.close()

    def _take(self) -> list[dict[str, Any]]:
        size = min(len(self._waiting), self.config.outbox_batch)
        return [self._waiting.popleft() for _ in range(size)]

    async def _run(self) -> None:
        wait = self.config.outbox_wait_ms / 1000
        retry_at, pause = 0.0, wait
        loop = asyncio.get_running_loop()
        while not self._closing:
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            taken: list[dict[str, Any]] = []
            try:
                away = loop.time() < retry_at
                while self._waiting:
                    taken = self._take()
                    delivered = await self._deliver(taken, spool_only=away)
                    taken = []
                    if not delivered and not away:
                        away, pause = True, min(pause * 2, 5.0)
                        retry_at = loop.time() + pause
                if self._closing:
                    break
                if not away and await self._send_spooled():
                    pause = wait
                elif not away:
                    pause = min(pause * 2, 5.0)
                    retry_at = loop.time() + pause
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(taken))
                raise
            except Exception:
                log.exception("a round of the outbox failed")
            OUTBOX.set(len(self._waiting))

    async def _deliver(self, events: list[dict[str, Any]], *, spool_only: bool = False) -> bool:
        """Sends a batch, or spools it; whether it was sent."""
        body = orjson.dumps(events)
        if not spool_only and await self._post(body, len(events)):
            return True
        await asyncio.to_thread(self._store, body, len(events))
        return False

    async def _post(self, body: bytes, count: int) -> bool:
        """Whether the collector took the batch, or refused it for good."""
        assert self._session is not None and self.url is not None
        try:
            async with self._session.post(self.url, data=body, headers=self._headers) as response:
                await response.read()
                if response.status < 300:
                    SENT.inc(count)
                    return True
                if response.status in (400, 409, 413, 422):
                    DROPPED.labels("refused").inc(count)
                    log.error("the collector refuses %d events: %d", count, response.status)
                    return True
                return False
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    # --- disk -------------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        return sorted(self.spool.glob("*.json"))

    def _store(self, body: bytes, count: int) -> None:
        files = self._files()
        sizes = [file.stat().st_size for file in files]
        size_after = sum(sizes) + len(body)
        for file, size in zip(files, sizes, strict=True):
            if size_after <= self.config.spool_bytes:
                break
            DROPPED.labels("disk").inc(len(orjson.loads(file.read_bytes())))
            file.unlink()
            size_after -= size
        if size_after > self.config.spool_bytes:
            DROPPED.labels("disk").inc(count)
            return
        self._number += 1
        target = self.spool / f"{self._number:012d}.json"
        with new_file(target) as file:
            file.write_bytes(body)
        SPOOL.set(size_after)

    async def _send_spooled(self) -> bool:
        """Sends what lies on disk, oldest first; whether nothing of it is left."""
        for file in await asyncio.to_thread(self._files):
            if self._closing:
                return False
            try:
                body = await asyncio.to_thread(file.read_bytes)
                count = len(orjson.loads(body))
            except (OSError, ValueError):
                DROPPED.labels("broken").inc()
                file.unlink(missing_ok=True)
                continue
            if not await self._post(body, count):
                return False
            file.unlink(missing_ok=True)
        SPOOL.set(0)
        return True
