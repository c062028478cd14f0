"""Kill loops: a collector is killed under load, its database with it; nothing acknowledged is lost or there twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import select

from monitoring.store.database import Store
from monitoring.store.tables import feedback, recommendations
from newfound.events import BATCH
from tests.monitoring import servers as parts

BATCH_SIZE: Final = 200
SENDERS: Final = 4


def run(folder: Path, url: str, crash: Callable[[], None] | None, *, events: int, kills: int) -> dict[str, int]:
    """Sends events, most batches once and some twice, while the collector is killed.

    Args:
        folder: for logs.
        url: an empty store.
        crash: what is done to the database at every kill; None leaves it alone.
        events: how many.
        kills: how often.

    Returns:
        `events`, `kills`, `lost` (acknowledged and not stored, at any kill or in the end) and `twice`.
    """
    collector = parts.Collector(url, folder)
    collector.start()
    lost: set[str] = set()

    def kill(before: set[str]) -> None:
        collector.kill()
        if crash is not None:
            crash()
        lost.update(before - set(_stored(url)))
        collector.start()

    try:
        acknowledged = _send_all(collector, events, [kill] * kills)
        stored = _stored(url)
    finally:
        collector.stop()
    lost |= acknowledged - set(stored)
    return {
        "events": len(acknowledged),
        "kills": kills,
        "lost": len(lost),
        "twice": len(stored) - len(set(stored)),
    }


def _send_all(collector: parts.Collector, count: int, disturb: Sequence[Callable[[set[str]], None]]) -> set[str]:
    batches = []
    for start in range(0, count, BATCH_SIZE):
        events: list[Any] = [parts.feedback(n, user_id=str(n % 977)) for n in range(start, start + BATCH_SIZE - 5)]
        events += [parts.recommendation(n, user_id=str(n % 977)) for n in range(start, start + 5)]
        batches.append((json.dumps(parts.batch(events)), [event.id for event in events]))
    acknowledged: set[str] = set()
    lock = threading.Lock()

    def sender(number: int) -> None:
        mine = batches[number::SENDERS]
        again = random.Random(number).sample(mine, len(mine) // 4)  # what a sender repeats that saw no answer
        with httpx.Client(timeout=20) as client:
            for body, ids in mine + again:
                while not _post(client, collector.url, body):
                    time.sleep(0.05)
                with lock:
                    acknowledged.update(ids)

    threads = [threading.Thread(target=sender, args=(number,), daemon=True) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    for number, action in enumerate(disturb, start=1):
        while len(acknowledged) < count * number // (len(disturb) + 2):
            time.sleep(0.01)
        with lock:
            before = set(acknowledged)  # acknowledged before the crash
        action(before)
    for thread in threads:
        thread.join()
    return acknowledged


def _post(client: httpx.Client, url: str, body: str) -> bool:
    try:
        answer = client.post(f"{url}/v1/events", content=body, headers={"content-type": BATCH})
    except httpx.HTTPError:
        return False
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200


def _stored(url: str) -> list[str]:
    store = Store(url, parts.SECRET.encode())
    with store.engine.connect() as connection:
        ids = [row for table in (feedback, recommendations) for row in connection.scalars(select(table.c.id))]
    store.close()
    return ids
