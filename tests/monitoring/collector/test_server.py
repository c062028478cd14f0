"""The collector's server: senders that send nothing, or connect without end, stop nobody."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from monitoring.collector.__main__ import main
from monitoring.collector.app import create_app
from monitoring.collector.metrics import Metrics
from monitoring.collector.server import server_config
from monitoring.settings import MonitoringConfig
from monitoring.store import database
from monitoring.store.database import Store
from newfound.events import STRUCTURED, envelope
from newfound.service.logs import JsonLines
from tests.monitoring import servers as parts
from tests.service.live_server import live

SECRET = parts.SECRET.encode()


def _run(tmp_path: Path, story: Callable[[int], Awaitable[None]], **bounds: int) -> Metrics:
    settings, metrics = MonitoringConfig(**bounds), Metrics()

    async def main() -> None:
        app = create_app(Store(f"sqlite:///{tmp_path}/e.db", SECRET), settings, SECRET, metrics=metrics)
        async with live(server_config(app, settings, metrics, host="127.0.0.1", port=0)) as port:
            await story(port)

    asyncio.run(main())
    return metrics


async def _send(port: int, name: str) -> bytes:
    body = json.dumps(envelope(parts.feedback(name), "/t")).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: {STRUCTURED}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def _closed(metrics: Metrics, why: str) -> float:
    return metrics.closed.labels(why)._value.get()


def test_senders_that_never_finish_their_headers_are_hung_up_on(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        silent[0][1].write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n")
        assert b'{"durable":1}' in await _send(port, "meanwhile")
        async with asyncio.timeout(20):
            assert [await reader.read() for reader, _ in silent] == [b""] * 20

    metrics = _run(tmp_path, story, header_seconds=1)
    assert _closed(metrics, "headers") == 20 and _closed(metrics, "peer") == 0


def test_a_sender_at_its_cap_is_told_so_and_taken_again_later(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        await asyncio.sleep(0.05)
        answer = await _send(port, "too-much")
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after" in answer.lower()
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert b'{"durable":1}' in await _send(port, "later")

    assert _closed(_run(tmp_path, story, connections_per_peer=4), "peer") == 1


def test_its_logs_wait_for_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pipe would hold up whoever logs, and the intake with it; see the tests of `newfound.service.logs`."""
    handlers: list[logging.Handler] = []
    root, caught = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setenv("NEWFOUND_USER_KEY", parts.SECRET)

    def away(*_: object, **__: object) -> None:
        handlers.extend(root.handlers)
        raise ConnectionError

    monkeypatch.setattr(database, "wait_for", away)
    try:
        with pytest.raises(ConnectionError):
            main()
    finally:
        signal.signal(signal.SIGTERM, caught)
        logging.captureWarnings(False)
    assert [type(one) for one in handlers] == [JsonLines]
