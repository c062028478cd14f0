"""Connections: late headers, half-sent bodies and greedy peers over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from newfound.service.connections import bounded_protocol
from serving.http.accept_loop import Loop
from serving.http.admission import AdmissionMiddleware
from serving.http.context import Capacity
from tests.service.live_server import live

HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


closed: list[str] = []


def run(story: Callable[[int], Awaitable[None]], receive_s: float = 0.3, per_peer: int = 80) -> None:
    closed.clear()

    async def main() -> None:
        admission = AdmissionMiddleware(app, Capacity(4), body_bytes=1000, receive_s=receive_s)
        protocol = bounded_protocol(receive_s, per_peer, b'{"error":"busy"}', closed.append)
        config = uvicorn.Config(admission, http=protocol, port=0, lifespan="off", log_config=None)  # type: ignore[arg-type]
        async with live(config) as port:
            await story(port)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


async def send(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def answered(port: int) -> bool:
    reader, writer = await send(port, HEAD + b"\r\n{}")
    async with asyncio.timeout(10):
        status = await reader.readline()
    writer.close()
    return b" 200 " in status


def test_half_sent_bodies_and_headers_stop_nobody_and_are_hung_up_on():
    async def story(port: int) -> None:
        bodies = [await send(port, HEAD + b"\r\n{") for _ in range(64)]
        headers = [await send(port, HEAD) for _ in range(8)]
        silent = [await send(port, b"") for _ in range(4)]
        assert await answered(port)
        async with asyncio.timeout(10):
            told = [await reader.read() for reader, _ in bodies]
            assert all(text.startswith(b"HTTP/1.1 408") and b'"field":"body"' in text for text in told)
            assert [await reader.read() for reader, _ in headers + silent] == [b""] * 12
        assert closed == ["headers"] * 12
        assert await answered(port)

    run(story)


def test_a_peer_at_its_cap_is_told_so_and_taken_again_later():
    async def story(port: int) -> None:
        held = [await send(port, HEAD) for _ in range(3)]
        reader, _ = await send(port, b"")
        async with asyncio.timeout(10):
            text = await reader.read()
        assert text.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in text.lower() and closed == ["peer"]
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert await answered(port)

    run(story, receive_s=30, per_peer=3)


def test_a_kept_connection_has_the_same_time_for_each_request():
    async def story(port: int) -> None:
        reader, writer = await send(port, HEAD + b"\r\n{}")
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readline()
            while await reader.readline() != b"\r\n":
                pass
            assert await reader.readexactly(2) == b"{}"
            writer.write(b"\r\n")  # nothing of a request yet
            assert await reader.read() == b""

    run(story)
