"""uvicorn's HTTP protocol with a deadline for headers and a cap on the connections of one peer.

uvicorn waits for headers as long as a connection is open, and takes as many connections as the process may have file
descriptors: one peer that sends nothing could take them all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_USER_TIMEOUT
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_RETRY_S: Final = 1


class BoundedProtocol(HttpToolsProtocol):
    """One connection. See `bounded_protocol`."""

    receive_s: float
    per_peer: int
    busy: bytes
    closed: Callable[[str], object]
    peers: Counter[str]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._peer = self.client[0] if self.client else ""
        self.peers[self._peer] += 1
        if self.peers[self._peer] > self.per_peer:
            self.closed("peer")
            transport.write(self.busy)
            transport.close()
            return
        socket = transport.get_extra_info("socket")
        if socket is not None and socket.family in (AF_INET, AF_INET6):
            # A peer that does not read its answer, or has vanished, must not hold the connection open.
            socket.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, int(self.receive_s * 1000))
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.peers[self._peer] -= 1
        if not self.peers[self._peer]:
            del self.peers[self._peer]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_headers()  # of a further request on a kept-alive connection
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        self._timer = self.loop.call_later(self.receive_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self.closed("headers")
        self.transport.close()


def bounded_protocol(
    receive_s: float, per_peer: int, busy: bytes, closed: Callable[[str], object] = lambda why: None
) -> type[HttpToolsProtocol]:
    """The protocol class for one server.

    Args:
        receive_s: most seconds for the headers of a request to arrive, from the connection on.
        per_peer: most connections of one address.
        busy: JSON that an address at its cap is answered, with status 503.
        closed: told why a connection was closed: `headers` or `peer`.
    """
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(busy)}\r\n"
    answer = f"{head}Retry-After: {_RETRY_S}\r\nConnection: close\r\n\r\n".encode() + busy
    attributes: dict[str, Any] = {
        "receive_s": receive_s,
        "per_peer": per_peer,
        "busy": answer,
        "closed": staticmethod(closed),
        "peers": Counter(),
    }
    return type("Protocol", (BoundedProtocol,), attributes)
