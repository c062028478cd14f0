"""Group commit as a state machine, over a real store with faults; and what a vanished replica cannot do to it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError

from monitoring.collector.app import create_app
from monitoring.collector.commit import Busy, GroupCommit
from monitoring.settings import MonitoringConfig
from monitoring.store import engine
from monitoring.store.batches import Batch, Refusal, Written
from monitoring.store.database import Store
from monitoring.store.engine import lock_writers
from monitoring.store.tables import feedback
from newfound.events import STRUCTURED, FeedbackEvent, envelope
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
AT = datetime.now(UTC)
IDLE_S = 3  # after which PostgreSQL ends the transaction of a replica that says nothing
_AWAY = OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))


class FaultyStore(Store):
    """A store whose writes fail, hang, or fail after they were committed."""

    fault = "none"

    def __init__(self, url: str) -> None:
        super().__init__(url, SECRET)
        self.go_on = threading.Event()

    def write_batches(self, batches: Sequence[Batch]) -> Written:
        fault = self.fault
        if fault == "hangs":
            self.go_on.wait(20)
        if fault == "away":
            raise _AWAY
        written = super().write_batches(batches)
        if fault == "answer lost":
            raise _AWAY
        return written


class GroupCommitMachine(RuleBasedStateMachine):
    """Senders, and a store that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="newfound-")
        self.store = FaultyStore(f"sqlite:///{self.folder.name}/events.db")
        self.loop = asyncio.new_event_loop()
        self.commit = GroupCommit(self.store, commit_events=5, queue_events=16, seconds=0.2, written=lambda *_: None)
        self.tasks: list[tuple[str, Batch, asyncio.Task[Refusal | None]]] = []
        self.number = 0
        self.acknowledged: dict[str, str] = {}
        self.refused: set[str] = set()
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.commit.start()

    async def _pause(self) -> None:
        await asyncio.sleep(0.001)

    async def _drained(self) -> None:
        """Nothing waits any more; `stop` by itself gives up on a store that takes longer than a sender waits."""
        while self.commit.waiting_events:
            await asyncio.sleep(0.01)

    def _event(self, **changes: Any) -> FeedbackEvent:
        self.number += 1
        return parts.feedback(self.number, at=AT, **changes)

    @rule(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
    def send(self, sizes: list[int]) -> None:
        for size in sizes:
            self._send("new", [self._event() for _ in range(size)])

    @rule()
    def send_what_is_acknowledged(self) -> None:
        if self.acknowledged:
            known = next(iter(self.acknowledged))
            self._send("again", [self._event(), parts.feedback(known[1:], at=AT)])

    @rule()
    def send_another_event_under_a_known_id(self) -> None:
        if self.acknowledged:
            known = next(iter(self.acknowledged))
            self._send("conflict", [self._event(), parts.feedback(known[1:], at=AT, item="another")])

    @rule()
    def send_what_no_database_keeps(self) -> None:
        good = self._event()
        poison = FeedbackEvent.model_construct(**{**self._event().model_dump(), "item": "\ud800"})
        self._send("poison", [good, poison])

    @rule(fault=st.sampled_from(["none", "away", "hangs", "answer lost"]))
    def change(self, fault: str) -> None:
        self.store.fault = fault
        self.store.go_on.set()
        self.store.go_on = threading.Event()

    @rule()
    def wait_for_every_answer(self) -> None:
        """Whatever the store does, every sender has an answer in time; a store that hangs is told to go on then."""
        if self.tasks:
            done, pending = self.loop.run_until_complete(
                asyncio.wait([task for _, _, task in self.tasks], timeout=0.2 + 5)
            )
            assert not pending, "a sender got no answer"
        self.change("none")
        for kind, batch, task in self.tasks:
            self._check(kind, batch, task)
        self.tasks = []

    def _send(self, kind: str, events: list[FeedbackEvent]) -> None:
        batch = Batch(events)
        self.tasks.append((kind, batch, self.loop.create_task(self.commit.put(batch))))
        self.loop.run_until_complete(self._pause())

    def _check(self, kind: str, batch: Batch, task: asyncio.Task[Refusal | None]) -> None:
        ids = [event.id for event in batch.events]
        if task.exception() is not None:
            assert isinstance(task.exception(), Busy)
            return
        refusal = task.result()
        assert (refusal is not None) == (kind in ("conflict", "poison")), (kind, refusal)
        if refusal is None:
            self.acknowledged.update({event.id: event.item for event in batch.events})  # type: ignore[union-attr]
        else:
            assert refusal.status == (409 if kind == "conflict" else 422)
            self.refused.add(ids[0])  # a new event beside the one at fault

    @invariant()
    def what_was_acknowledged_is_stored_once_and_what_was_refused_is_not(self) -> None:
        with self.store.engine.connect() as connection:
            stored = [(row.id, row.item) for row in connection.execute(select(feedback.c.id, feedback.c.item))]
        assert len(stored) == len({name for name, _ in stored})
        assert self.acknowledged.items() <= dict(stored).items()
        assert not self.refused & {name for name, _ in stored}

    @invariant()
    def the_queue_counts_what_waits(self) -> None:
        assert 0 <= self.commit.waiting_events <= 16

    def teardown(self) -> None:
        self.wait_for_every_answer()
        self.loop.run_until_complete(asyncio.wait_for(self._drained(), 20))
        self.loop.run_until_complete(asyncio.wait_for(self.commit.stop(), 20))
        assert self.commit.waiting_events == 0 and self.commit.stalled() == 0
        self.store.close()
        self.loop.close()
        self.folder.cleanup()


TestGroupCommit = GroupCommitMachine.TestCase
TestGroupCommit.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)


def _post(client: TestClient, name: str) -> Any:
    content = envelope(parts.feedback(name), "/t")
    return client.post("/v1/events", json=content, headers={"content-type": STRUCTURED})


def test_a_replica_that_vanishes_with_the_writers_lock_loses_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock and says nothing more: senders are told to come back, and soon events are taken again."""
    monkeypatch.setattr(engine, "IDLE_S", IDLE_S)
    store, vanished = Store(postgres_url, SECRET, statement_s=10), Store(postgres_url, SECRET)
    config = MonitoringConfig(commit_seconds=1, stalled_seconds=1)
    with TestClient(create_app(store, config, SECRET)) as client:
        assert _post(client, "before").status_code == 200
        with vanished.engine.connect() as connection:
            transaction = connection.begin()
            lock_writers(connection)
            began = time.monotonic()
            assert _post(client, "during").status_code == 503
            assert time.monotonic() - began < IDLE_S, "before the lock was taken from it"
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            parts.wait_until(lambda: _post(client, "after").status_code == 200, IDLE_S + 10, "intake")
            parts.wait_until(lambda: client.get("/readyz").status_code == 200, 10, "readiness")
            with pytest.raises(DBAPIError):
                transaction.commit()
    vanished.close()


def test_a_database_that_cannot_be_written_is_noticed_where_nobody_sends(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    store = FaultyStore(url)
    with TestClient(create_app(store, MonitoringConfig(), SECRET)) as client:
        assert client.get("/readyz").status_code == 200
        with store.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE progress")
        assert client.get("/readyz").status_code == 503


def test_events_that_cannot_be_kept_cost_nobody_else_theirs(postgres_url: str) -> None:
    """PostgreSQL takes no NUL: whatever gets past the checks is refused for good, and not for ever tried again."""
    store = Store(postgres_url, SECRET)
    poison = FeedbackEvent.model_construct(**{**parts.feedback("nul").model_dump(), "item": "a\0b"})

    async def send() -> list[Refusal | None]:
        commit = GroupCommit(store, commit_events=99, queue_events=99, seconds=20, written=lambda *_: None)
        puts = [asyncio.create_task(commit.put(Batch([event]))) for event in (parts.feedback("a"), poison)]
        await asyncio.sleep(0)
        commit.start()
        answers = await asyncio.gather(*puts)
        await commit.stop()
        return answers

    good, bad = asyncio.run(send())
    assert good is None and bad is not None and bad.status == 422
    assert store.counts()["feedback"] == 1
    store.close()
