"""Accepts every pending connection per loop iteration.

uvloop accepts one connection an iteration. Where iterations are long, because requests are being answered, new
connections wait in the kernel's queue, where admission cannot refuse them, and time out. Here each iteration accepts
all of them, so that admission answers 503 at once where there are too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import uvloop

MOST: Final = 512  # connections accepted in one iteration


class Loop(uvloop.Loop):
    """uvloop's, but for how plain TCP servers accept."""

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        ssl: Any = None,
        backlog: int = 2048,
        **options: Any,
    ) -> asyncio.AbstractServer:
        """As asyncio's; with TLS it is uvloop's own."""
        if ssl is not None:
            return await super().create_server(
                protocol_factory, host, port, sock=sock, ssl=ssl, backlog=backlog, **options
            )
        if sock is None:
            sock = socket.create_server((host or "0.0.0.0", port or 0), backlog=backlog)
        sock.setblocking(False)
        sock.listen(backlog)
        return _Acceptor(self, sock, protocol_factory)


class _Acceptor(asyncio.AbstractServer):
    """A listening socket whose pending connections are accepted together."""

    def __init__(self, loop: Loop, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop, self._sock, self._factory = loop, sock, factory
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = True
        loop.add_reader(sock, self._accept)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, while it listens."""
        return (self._sock,) if self._open else ()

    def is_serving(self) -> bool:
        """Whether it listens."""
        return self._open

    def close(self) -> None:
        """Stops listening; connections stay."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def wait_closed(self) -> None:
        """Waits for connections that are being set up."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(MOST):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # Out of file descriptors, or gone before we looked: the queue is tried again at the next iteration.
                return
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._set_up(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _set_up(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()
