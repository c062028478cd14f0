"""TCP proxy in front of one part, in a thread of its own, that spoils what passes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Final

from serving.local.processes import free_port

SLOW_S: Final = 5.0
_TURN_S: Final = 0.02


@dataclass
class Proxy:
    """One part's proxy.

    Modes: `pass`; `slow`, answers are held back for five seconds; `wrong`, an error of the part's protocol; `garbage`,
    something that is none; `stall`, nothing passes in either direction, and all of it does later; `half-open`, what is
    sent is taken and goes nowhere, as by a host that is gone, and the connection is reset once the host is back.

    Attributes:
        target: the part's own port.
        wrong: an error in the part's protocol.
        garbage: no answer in any protocol.
    """

    target: int
    wrong: bytes
    garbage: bytes = b"\x00\xffnonsense\r\n"
    port: int = field(default_factory=free_port)
    mode: str = "pass"

    def start(self) -> None:
        """Listens, from now on until the process ends."""
        ready = threading.Event()

        def run() -> None:
            asyncio.run(self._serve(ready))

        threading.Thread(target=run, daemon=True).start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._handle, "127.0.0.1", self.port)
        ready.set()
        await server.serve_forever()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_writer, back = None, None
        try:
            await self._while("stall")
            if self.mode == "half-open":
                await self._swallow(reader, writer)
                return
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
            back = asyncio.create_task(self._back(upstream_reader, writer))
            while data := await reader.read(1 << 16):
                await self._while("stall")
                if self.mode == "half-open":
                    await self._swallow(reader, writer)
                    return
                if self.mode in ("wrong", "garbage"):
                    writer.write(self.wrong if self.mode == "wrong" else self.garbage)
                else:
                    upstream_writer.write(data)
        except OSError:
            pass  # either side has gone
        finally:
            if back is not None:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
            if upstream_writer is not None:
                upstream_writer.close()
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.mode == "slow":
                    await asyncio.sleep(SLOW_S)
                await self._while("stall")
                if self.mode == "half-open":
                    continue
                writer.write(data)
            writer.close()

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes everything until the mode ends or the sender gives up, then resets the connection."""
        while self.mode == "half-open":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TURN_S):
                    if not await reader.read(1 << 16):
                        return
        taken = writer.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _while(self, mode: str) -> None:
        while self.mode == mode:
            await asyncio.sleep(_TURN_S)


def http(status: str, body: bytes) -> bytes:
    """A whole HTTP answer."""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(body),
        body,
    )
