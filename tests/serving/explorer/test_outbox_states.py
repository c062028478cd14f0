"""The outbox against every order of events, outages, refusals, full disks, kills and restarts: no loss is untold.

An event arrives, is set aside, or is counted as dropped; one that was in memory alone when the process was killed is
the only exception.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.explorer import outbox as module
from serving.explorer.outbox import Outbox
from serving.metrics import DROPPED
from serving.settings import ServingConfig
from tests.serving.virtual_time import VirtualTimeLoop

CONFIG = ServingConfig(outbox_batch=4, outbox_wait_ms=100, outbox_events=12, spool_bytes=1500, refused_bytes=10**6)


def dropped(why: str) -> int:
    return int(DROPPED.labels(why)._value.get())


class Sender(Outbox):
    """An outbox whose collector and disk do as the machine says."""

    machine: Any

    async def _post(self, body: bytes) -> tuple[int, datetime | None, str]:
        return await self.machine.receive(orjson.loads(body))


class OutboxStates(RuleBasedStateMachine):
    """One sender, its collector, its disk."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.number = 0
        self.put_in: set[str] = set()
        self.received: list[str] = []
        self.bad: set[str] = set()
        self.killed: set[str] = set()
        self.up, self.disk = True, True
        self.before = {why: dropped(why) for why in ("memory", "disk", "refused", "broken")}
        self.sender = self.start()

    def start(self) -> Sender:
        sender = Sender("http://collector", self.folder, CONFIG)
        sender.machine = self
        real = sender.spool.put

        def put(events: Any) -> int:
            if not self.disk:
                raise OSError(28, "No space left on device")
            return real(events)

        sender.spool.put = put  # type: ignore[method-assign]
        self.loop.run_until_complete(sender.open())
        return sender

    async def receive(self, batch: list[dict[str, Any]]) -> tuple[int, datetime | None, str]:
        await asyncio.sleep(0.01)
        if not self.up:
            return 503, None, ""
        ids = [event["id"] for event in batch]
        if self.bad & set(ids):
            return 422, datetime.now(UTC), "bad"
        self.received += ids
        return 202, None, ""

    def lost(self, why: str) -> int:
        return dropped(why) - self.before[why]

    @rule(count=st.integers(1, 6), bad=st.booleans())
    def put(self, count: int, bad: bool) -> None:
        for _ in range(count):
            self.number += 1
            name = f"e{self.number}"
            self.put_in.add(name)
            if bad and self.number % 3 == 0:
                self.bad.add(name)
            self.sender.put({"id": name, "time": datetime.now(UTC).isoformat(), "data": "x" * 50})

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(up=st.booleans())
    def collector(self, up: bool) -> None:
        self.up = up

    @rule(works=st.booleans())
    def disk_works(self, works: bool) -> None:
        self.disk = works

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.sender.close())
        self.sender = self.start()

    @rule()
    def kill(self) -> None:
        """Between two steps of the sender; what it held in memory goes, unless it had arrived."""
        assert self.sender._task is not None
        on_disk = self.on_disk()
        self.sender._task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.sender._task, return_exceptions=True))
        assert self.sender._session is not None
        self.loop.run_until_complete(self.sender._session.close())
        held = {orjson.loads(event)["id"] for event in self.sender._waiting}
        self.killed |= held - on_disk - set(self.received)
        self.sender = self.start()

    def on_disk(self) -> set[str]:
        spool = self.sender.spool
        return {orjson.loads(event)["id"] for file in spool.files() for event in spool.read(file) or ()}

    def aside(self) -> set[str]:
        spool = self.sender.refused
        found = [orjson.loads(one) for file in spool.files() for one in spool.read(file) or ()]
        return {one["event"]["id"] for one in found}

    @invariant()
    def only_whole_batches_and_bounds(self) -> None:
        assert len(self.sender._waiting) <= CONFIG.outbox_events
        assert sum(file.stat().st_size for file in self.sender.spool.files()) <= CONFIG.spool_bytes
        assert not [one for one in self.folder.iterdir() if one.name.endswith(".part")]

    def teardown(self) -> None:
        self.up = self.disk = True
        self.pass_time(60)
        self.loop.run_until_complete(self.sender.close())
        assert not self.sender.spool.files() and not self.sender._waiting
        arrived = set(self.received)
        accounted = len(arrived) + len(self.aside()) + self.lost("memory") + self.lost("disk")
        missing = self.put_in - arrived - self.aside() - self.killed
        assert len(missing) <= self.lost("memory") + self.lost("disk"), missing
        assert len(self.put_in) <= accounted + len(self.killed)
        assert self.aside() <= self.bad and not arrived & self.bad
        assert self.lost("broken") == 0 and self.lost("refused") >= len(self.aside())
        self.loop.close()
        shutil.rmtree(self.folder)


async def _here(work: Any, *arguments: Any) -> Any:
    """A thread's work, without the thread: its time would not pass on this loop."""
    await asyncio.sleep(0)
    return work(*arguments)


class _Asyncio:
    """The module as the outbox uses it, but for threads."""

    to_thread = staticmethod(_here)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


TestOutboxStates = OutboxStates.TestCase
TestOutboxStates.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def setup_module() -> None:
    module.asyncio = _Asyncio()  # type: ignore[assignment]


def teardown_module() -> None:
    module.asyncio = asyncio  # type: ignore[attr-defined]
