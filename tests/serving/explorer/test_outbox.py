"""Events on their way to the collector: batched, spooled, bounded, counted."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving.explorer.outbox import Outbox
from serving.metrics import DROPPED
from serving.settings import ServingConfig

CONFIG = ServingConfig(outbox_batch=3, outbox_wait_ms=20, outbox_events=8, spool_bytes=1200, outbox_timeout_ms=500)


class Collector:
    """Takes batches, unless it is told otherwise; `judge` gives the status of a batch."""

    def __init__(self) -> None:
        self.status, self.batches, self.headers = 202, list[list[dict[str, Any]]](), list[Any]()
        self.judge: Callable[[list[dict[str, Any]]], int] = lambda batch: 202
        self.behind_s = 0.0

    async def handle(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        batch = await request.json()
        status = self.judge(batch) if self.status < 300 else self.status
        if status < 300:
            self.batches.append(batch)
        return web.Response(status=status, headers={"Date": formatdate(time.time() - self.behind_s, usegmt=True)})

    @property
    def ids(self) -> list[str]:
        return [event["id"] for batch in self.batches for event in batch]


def event(number: int, size: int = 0) -> dict[str, Any]:
    return {"id": f"e{number}", "time": datetime.now(UTC).isoformat(), "data": "x" * size}


def set_aside(folder: Path) -> list[str]:
    files = sorted((folder / "refused").glob("*.json"))
    return [one["event"]["id"] for file in files for one in json.loads(file.read_bytes())]


def dropped(why: str) -> float:
    return DROPPED.labels(why)._value.get()


async def until(check: Callable[[], bool], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.01)


def run(story: Callable[[Collector, str], Awaitable[None]]) -> None:
    async def main() -> None:
        collector = Collector()
        app = web.Application()
        app.router.add_post("/v1/events", collector.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            await story(collector, f"http://127.0.0.1:{port}/v1/events")
        finally:
            await runner.cleanup()

    asyncio.run(main())


def test_events_leave_in_batches(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        outbox = Outbox(url, tmp_path, CONFIG, token="secret")
        await outbox.open()
        for number in range(7):
            outbox.put(event(number))
        await until(lambda: len(collector.ids) == 7)
        await outbox.close()
        assert collector.ids == [f"e{number}" for number in range(7)]
        assert [len(batch) for batch in collector.batches] == [3, 3, 1]
        assert collector.headers[0]["Content-Type"] == "application/cloudevents-batch+json"
        assert collector.headers[0]["Authorization"] == "Bearer secret"

    run(story)


@pytest.mark.parametrize("away", [503, 0])
def test_what_cannot_be_sent_waits_on_disk_and_leaves_in_order(tmp_path, away):
    async def story(collector: Collector, url: str) -> None:
        collector.status = away or 202
        outbox = Outbox(url if away else "http://127.0.0.1:9/", tmp_path, CONFIG)
        await outbox.open()
        for number in range(5):
            outbox.put(event(number))
        await until(lambda: sum(len(json.loads(f.read_bytes())) for f in tmp_path.glob("*.json")) == 5)
        collector.status = 202
        outbox.url = url
        await until(lambda: len(collector.ids) == 5)
        assert collector.ids == [f"e{number}" for number in range(5)]
        await until(lambda: not list(tmp_path.glob("*.json")))
        await outbox.close()

    run(story)


def test_a_next_process_sends_what_an_earlier_one_left(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        collector.status = 503
        first = Outbox(url, tmp_path, CONFIG)
        await first.open()
        first.put(event(1))
        await first.close()
        assert len(list(tmp_path.glob("*.json"))) == 1
        (tmp_path / "000000000000.json").write_bytes(b"torn")
        collector.status = 202
        second = Outbox(url, tmp_path, CONFIG)
        await second.open()
        second.put(event(2))
        await until(lambda: set(collector.ids) == {"e1", "e2"})
        await second.close()

    run(story)


def test_memory_and_disk_are_bounded_and_drops_are_counted(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        collector.status = 503
        outbox = Outbox(url, tmp_path, CONFIG)
        memory, disk = dropped("memory"), dropped("disk")
        for number in range(11):
            outbox.put(event(number, size=200))
        assert dropped("memory") - memory == 3
        await outbox.open()
        await until(lambda: dropped("disk") - disk > 0)
        await outbox.close()
        loaded = list(tmp_path.glob("*.json"))
        assert sum(file.stat().st_size for file in loaded) <= 1200
        kept = sum(len(json.loads(file.read_bytes())) for file in loaded)
        assert kept + (dropped("disk") - disk) == 8

    run(story)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_refused_event_costs_the_others_of_its_batch_nothing(tmp_path, status):
    async def story(collector: Collector, url: str) -> None:
        bad = {"e3", "e300", "e301"}
        collector.judge = lambda batch: status if bad & {event["id"] for event in batch} else 202
        config = CONFIG.model_copy(update={"outbox_batch": 500, "outbox_events": 1000})
        refused = dropped("refused")
        outbox = Outbox(url, tmp_path, config)
        for number in range(500):
            outbox.put(event(number))
        await outbox.open()
        await until(lambda: len(collector.ids) == 497)
        await outbox.close()
        assert collector.ids == [f"e{number}" for number in range(500) if f"e{number}" not in bad], "in order"
        assert set_aside(tmp_path) == ["e3", "e300", "e301"] and dropped("refused") - refused == 3
        assert len(collector.headers) < 60 and not list(tmp_path.glob("*.json"))

    run(story)


def test_a_batch_that_is_too_large_is_sent_in_parts(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        collector.judge = lambda batch: 413 if len(batch) > 2 else 202
        outbox = Outbox(url, tmp_path, CONFIG.model_copy(update={"outbox_batch": 8}))
        for number in range(8):
            outbox.put(event(number))
        await outbox.open()
        await until(lambda: len(collector.ids) == 8)
        await outbox.close()
        assert set_aside(tmp_path) == []

    run(story)


def test_events_wait_for_a_collector_whose_clock_is_behind_theirs(tmp_path):
    """The collector refuses what lies far in its future; that is nothing that the events could be blamed for."""

    async def story(collector: Collector, url: str) -> None:
        collector.behind_s = 900
        collector.judge = lambda batch: 422 if collector.behind_s > 300 else 202
        outbox = Outbox(url, tmp_path, CONFIG)
        await outbox.open()
        for number in range(5):
            outbox.put(event(number))
        await until(lambda: len(collector.headers) >= 2)
        await asyncio.sleep(0.2)
        assert len(collector.headers) < 12, "no storm"
        collector.behind_s = 0
        await until(lambda: len(collector.ids) == 5)
        await outbox.close()
        assert set(collector.ids) == {f"e{number}" for number in range(5)} and set_aside(tmp_path) == []

    run(story)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_costs_no_event_uncounted(tmp_path, monkeypatch, code):
    async def story(collector: Collector, url: str) -> None:
        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        collector.status = 503
        memory, disk = dropped("memory"), dropped("disk")
        outbox = Outbox(url, tmp_path, CONFIG)
        await outbox.open()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refuse)
            for number in range(12):
                outbox.put(event(number))
                await asyncio.sleep(0.01)
            assert [one.name for one in tmp_path.iterdir()] == ["refused"], "nothing half-written"
            collector.status = 202
            await until(lambda: len(collector.ids) == 12 - (dropped("memory") - memory))
            assert 8 <= len(set(collector.ids)) == len(collector.ids) and dropped("disk") == disk
            collector.status = 503
            for number in range(20, 24):
                outbox.put(event(number))
            await outbox.close()
        assert dropped("disk") - disk == 4, "what is lost at the end is counted"

    run(story)


def test_two_senders_share_a_spool(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        collector.status = 503
        both = [Outbox(url, tmp_path, CONFIG) for _ in range(2)]
        (tmp_path / "notes.txt").write_text("a stranger")
        (tmp_path / "later.json").write_text("[]")
        for outbox in both:
            await outbox.open()
        for number in range(6):
            both[number % 2].put(event(number))
        await until(lambda: sum(len(json.loads(f.read_bytes())) for f in tmp_path.glob("0*.json")) == 6)
        collector.status = 202
        await until(lambda: set(collector.ids) == {f"e{number}" for number in range(6)})
        for outbox in both:
            await outbox.close()
        assert {one.name for one in tmp_path.iterdir()} == {"notes.txt", "later.json", "refused"}

    run(story)


def test_a_batch_that_is_none_is_put_aside_as_a_whole(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        (tmp_path / "000000000000.json").write_bytes(b"torn")
        outbox = Outbox(url, tmp_path, CONFIG)
        await outbox.open()
        outbox.put(event(1))
        await until(lambda: (tmp_path / "000000000000.broken").exists() and collector.ids == ["e1"])
        await outbox.close()

    run(story)


def test_a_disk_that_can_only_be_read_holds_up_no_batch(tmp_path, monkeypatch):
    """As a file system is that was mounted anew after an error: what lies there is sent, though nothing goes away."""

    async def story(collector: Collector, url: str) -> None:
        (tmp_path / "000000000000.json").write_bytes(b"torn")
        for number in (1, 2):
            (tmp_path / f"00000000000{number}.json").write_text(json.dumps([event(number)]))
        broken = dropped("broken")
        outbox = Outbox(url, tmp_path, CONFIG)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        with monkeypatch.context() as patched:
            for name in ("rename", "unlink"):
                patched.setattr(Path, name, refuse)
            await outbox.open()
            await until(lambda: set(collector.ids) == {"e1", "e2"})
        assert dropped("broken") == broken
        await until(lambda: not list(tmp_path.glob("*.json")))
        await outbox.close()
        assert dropped("broken") - broken == 1 and (tmp_path / "000000000000.broken").exists()

    run(story)


def test_what_the_collector_refuses_for_good_is_counted_and_not_sent_again(tmp_path):
    async def story(collector: Collector, url: str) -> None:
        collector.status = 422
        refused = dropped("refused")
        outbox = Outbox(url, tmp_path, CONFIG)
        await outbox.open()
        outbox.put(event(1))
        await until(lambda: dropped("refused") - refused == 1)
        await outbox.close()
        assert not list(tmp_path.glob("*.json")) and len(collector.headers) == 1

    run(story)


def test_without_a_collector_nothing_is_kept(tmp_path: Path):
    async def story() -> None:
        outbox = Outbox(None, tmp_path / "spool", CONFIG)
        await outbox.open()
        outbox.put(event(1))
        await outbox.close()
        assert not (tmp_path / "spool").exists()

    asyncio.run(story())
