"""A load generator in a process of its own: ``python -m tests.benchmarks.load '{"port": 8080, ...}'``.

Closed loop: so many connections, each sends its next request when it has an answer. Open loop: requests leave at a
fixed rate whatever happens to the earlier ones, and their latency counts from the moment when they were due; with
`until_told` they go on past their number until SIGTERM.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import httptools

ROOT: Final = Path(__file__).parents[2]
GIVE_UP_S: Final = 10.0


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        answer, self.body = (self.parser.get_status_code(), self.body), b""
        self.parser = httptools.HttpResponseParser(self)
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionResetError())

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return await self.waiting


class Load:
    """What is sent, and what came back: (due, latency in seconds, status, codes of degradation)."""

    def __init__(self, port: int, path: str, bodies: list[str], seed: int = 0) -> None:
        self.port = port
        self.draw = random.Random(seed)
        self.requests = [
            (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
            ).encode()
            for body in bodies
        ]
        self.results: list[tuple[float, float, int, str]] = []
        self.idle: list[Connection] = []

    async def connect(self) -> Connection:
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed:
                return connection
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return made

    async def one(self, due: float) -> None:
        """Sends one request; status 0 means that there was no answer."""
        status, codes = 0, ""
        try:
            async with asyncio.timeout(GIVE_UP_S):
                connection = await self.connect()
                status, body = await connection.ask(self.draw.choice(self.requests))
            self.idle.append(connection)
            codes = degradation(body)
        except (OSError, TimeoutError, httptools.HttpParserError):
            pass
        self.results.append((due, time.monotonic() - due, status, codes))

    async def closed_loop(self, concurrency: int, seconds: float) -> None:
        until = time.monotonic() + seconds

        async def worker() -> None:
            while time.monotonic() < until:
                await self.one(time.monotonic())

        await asyncio.gather(*(worker() for _ in range(concurrency)))

    async def open_loop(self, rate: float, requests: int, until_told: bool = False) -> None:
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        began, tasks = time.monotonic() + 0.05, set()
        for number in itertools.count():
            if number >= requests and (told.is_set() or not until_told):
                break
            due = began + number / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = asyncio.create_task(self.one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def degradation(body: bytes) -> str:
    """The codes that a slate names, comma-separated, cheaply; `unsaid` where it lacks what it ought to name.

    The users who are asked for have a history, so a slate without a familiar item was made without it; and an item
    without a score was not ranked.
    """
    at = body.find(b'"degraded":[')
    if at < 0:
        return ""
    codes = body[at + 12 : body.find(b"]", at)].decode().replace('"', "")
    unranked = b'"score":null' in body and "ranker" not in codes
    unread = b'"slot":"familiar"' not in body and "features" not in codes
    return ",".join(filter(None, [codes, "unsaid" if unranked or unread else ""]))


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; the highest for 1."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def run(**order: Any) -> list[tuple[float, float, int, str]]:
    """Runs the generator in a process of its own; see `main` for the keys."""
    return collect(start(**order))


def start(**order: Any) -> subprocess.Popen[str]:
    """Starts the generator; `collect` waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    process.stdin = None
    return process


def collect(process: subprocess.Popen[str]) -> list[tuple[float, float, int, str]]:
    """Waits for a generator; its results."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return [(due, latency, status, codes) for due, latency, status, codes in json.loads(out)]


def main() -> None:
    """Reads an order from standard input: port, path, bodies, and concurrency + seconds or rate + requests."""
    import uvloop

    order = json.load(sys.stdin)
    load = Load(order["port"], order["path"], order["bodies"], order.get("seed", 0))
    if "rate" in order:
        uvloop.run(load.open_loop(order["rate"], order["requests"], order.get("until_told", False)))
    else:
        uvloop.run(load.closed_loop(order["concurrency"], order["seconds"]))
    json.dump(load.results, sys.stdout)


if __name__ == "__main__":
    main()
