"""Events on their way to the collector: batched, spooled, bounded, counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving.explorer.outbox import Outbox
from serving.metrics import DROPPED
from serving.settings import ServingConfig

CONFIG = ServingConfig(outbox_batch=3, outbox_wait_ms=20, outbox_events=8, spool_bytes=1000, outbox_timeout_ms=500)


class Collector:
    """Takes batches, unless it is told otherwise."""

    def __init__(self) -> None:
        self.status, self.batches, self.headers = 202, list[list[dict[str, Any]]](), list[Any]()

    async def handle(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if self.status < 300:
            self.batches.append(await request.json())
        return web.Response(status=self.status)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for batch in self.batches for event in batch]


def event(number: int, size: int = 0) -> dict[str, Any]:
    return {"id": f"e{number}", "data": "x" * size}


def dropped(why: str) -> float:
    return DROPPED.labels(why)._value.get()


async def until(check: Callable[[], bool], seconds: float = 10) -> None:
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
        assert sum(file.stat().st_size for file in loaded) <= 1000
        kept = sum(len(json.loads(file.read_bytes())) for file in loaded)
        assert kept + (dropped("disk") - disk) == 8

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
