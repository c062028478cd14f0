"""kill -9 under load: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from monitoring.store.database import Store
from monitoring.store.tables import feedback, recommendations
from newfound.events import BATCH
from tests.monitoring import servers as parts

EVENTS, BATCH_SIZE, SENDERS, KILLS = 50_000, 200, 4, 2

pytestmark = pytest.mark.slow  # `make durability`


def _send_all(collector: parts.Collector, disturb: list[object]) -> set[str]:
    """Sends 50,000 events, most batches twice, while the collector is killed; returns the acknowledged ids."""
    batches = []
    for start in range(0, EVENTS, BATCH_SIZE):
        events: list[object] = [parts.feedback(n, user_id=str(n % 977)) for n in range(start, start + BATCH_SIZE - 5)]
        events += [parts.recommendation(n, user_id=str(n % 977)) for n in range(start, start + 5)]
        batches.append((json.dumps(parts.batch(events)), [event.id for event in events]))  # type: ignore[attr-defined]
    acknowledged: set[str] = set()
    lock = threading.Lock()

    def sender(number: int) -> None:
        mine = batches[number::SENDERS]
        again = random.Random(number).sample(mine, len(mine) // 4)  # what a sender repeats that saw no answer
        with httpx.Client(timeout=20) as client:
            for body, ids in mine + again:
                while True:
                    try:
                        answer = client.post(
                            f"{collector.url}/v1/events", content=body, headers={"content-type": BATCH}
                        )
                    except httpx.HTTPError:
                        time.sleep(0.05)
                        continue
                    if answer.status_code == 200:
                        with lock:
                            acknowledged.update(ids)
                        break
                    assert answer.status_code == 503, answer.text
                    time.sleep(0.05)

    threads = [threading.Thread(target=sender, args=(number,), daemon=True) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    for kill, action in enumerate(disturb, start=1):
        while len(acknowledged) < EVENTS * kill // (len(disturb) + 2):
            time.sleep(0.01)
        before = set(acknowledged)  # acknowledged before the crash
        action(before)  # type: ignore[operator]
    for thread in threads:
        thread.join()
    return acknowledged


def _stored(url: str) -> set[str]:
    store = Store(url, parts.SECRET.encode())
    with store.engine.connect() as connection:
        ids = [row for table in (feedback, recommendations) for row in connection.scalars(select(table.c.id))]
    store.close()
    assert len(ids) == len(set(ids))
    return set(ids)


def _check(url: str, folder: Path, crash: object = None) -> None:
    collector = parts.Collector(url, folder)
    collector.start()

    def kill(before: set[str]) -> None:
        collector.kill()
        if crash is not None:
            crash()  # type: ignore[operator]
        assert before <= _stored(url)
        collector.start()

    try:
        acknowledged = _send_all(collector, [kill] * KILLS)
        assert len(acknowledged) == EVENTS
        assert _stored(url) == acknowledged
    finally:
        collector.stop()


def test_sqlite_keeps_what_was_acknowledged(sqlite_url: str, tmp_path: Path) -> None:
    _check(sqlite_url, tmp_path)


def test_postgresql_keeps_what_was_acknowledged(postgres: parts.Postgres, postgres_url: str, tmp_path: Path) -> None:
    def crash() -> None:
        postgres.crash()
        postgres.start()

    _check(postgres_url, tmp_path, crash)
