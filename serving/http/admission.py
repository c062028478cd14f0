"""Admission of requests: the outermost ASGI middleware of both services.

KServe's server takes bodies of any size, answers some malformed requests with 500, lets anyone unload a model, and has
no bound on requests in flight. This middleware refuses such requests before they reach it. A request counts as in
flight once its body has arrived: a sender that stops half-way holds a connection, and none of the capacity.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

import orjson

from serving.http.context import CURRENT, REQUEST_ID, TIMEOUT, Capacity, RequestContext, request_id, timeout_s
from serving.http.errors import Refused
from serving.http.v1 import Message, Send
from serving.metrics import REFUSED, REQUEST_SECONDS

Receive = Callable[[], Awaitable[Message]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Predict = Callable[[str, Message, bytes, dict[bytes, bytes], Send], Awaitable[None]]

_ID: Final = REQUEST_ID.encode()
_TIMEOUT: Final = TIMEOUT.encode()
_READ: Final = (
    r"/|/metrics|/openapi\.json|/docs|/releases|/v1/models|/v1/models/[^/:]+|/v2|/v2/health/(live|ready)|/v2/models"
    r"|/v2/models/[^/]+(/ready)?"
)
_WORK: Final = r"/v1/models/(?P<model>[^/]+):predict|/v2/models/[^/]+/infer"


class AdmissionMiddleware:
    """Refuses requests that are malformed, too large, too slow or too many.

    Args:
        app: what is behind it.
        capacity: instances in flight; where none is left, the answer is 503 at once.
        body_bytes: most bytes in a body.
        receive_s: most seconds for a body to arrive.
        pages: pattern of further paths that may be read.
        predict: answers v1 predictions in the app's stead.
    """

    def __init__(
        self,
        app: App,
        capacity: Capacity,
        body_bytes: int,
        receive_s: float,
        pages: str = "",
        predict: Predict | None = None,
    ) -> None:
        self.app, self.capacity, self.predict = app, capacity, predict
        self.body_bytes, self.receive_s = body_bytes, receive_s
        self._read = re.compile(f"{_READ}|{pages}" if pages else _READ)
        self._work = re.compile(_WORK)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began = time.monotonic()
        headers = dict(scope["headers"])
        identity = request_id(headers.get(_ID, b"").decode("latin-1"))
        headers[_ID] = identity.encode()
        work = self._work.fullmatch(scope["path"])
        respond = _Responder(send, headers[_ID])
        try:
            self._check(scope["method"], scope["path"], work is not None, headers)
            if work is None:
                await self.app(scope, receive, respond)
                return
            body = await self._read_body(receive)
            told = headers.get(_TIMEOUT)
            context = RequestContext(identity, self.capacity, timeout_s(told.decode("latin-1")) if told else None)
            scope["headers"] = list(headers.items())
            await self._answer(work["model"], scope, body, headers, receive, respond, context)
        except Refused as refused:
            await respond.refuse(refused)
        if work is not None:
            REQUEST_SECONDS.labels(str(respond.status)).observe(time.monotonic() - began)

    async def _answer(
        self,
        model: str | None,
        scope: Message,
        body: bytes,
        headers: dict[bytes, bytes],
        receive: Receive,
        respond: _Responder,
        context: RequestContext,
    ) -> None:
        context.take(1)  # the model takes the rest, once it knows how many instances there are
        token = CURRENT.set(context)
        try:
            if self.predict is not None and model is not None:
                await self.predict(model, scope, body, headers, respond)
            else:
                await self.app(scope, _replay(body, receive), respond)
        finally:
            CURRENT.reset(token)
            context.release()

    def _check(self, method: str, path: str, work: bool, headers: dict[bytes, bytes]) -> None:
        if not work and not self._read.fullmatch(path):
            raise Refused("there is nothing here", "path", 404)
        if method not in (("POST",) if work else ("GET", "HEAD")):
            raise NotAllowed("POST" if work else "GET, HEAD")
        if not work:
            return
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refused("expected application/json", "Content-Type", 415)
        if b"inference-header-content-length" in headers or any(name.startswith(b"ce-") for name in headers):
            raise Refused("binary tensors and CloudEvents are not taken here", "headers")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.body_bytes:
            raise Refused(f"more than {self.body_bytes} bytes", "body", 413)

    async def _read_body(self, receive: Receive) -> bytes:
        """The body. One that its sender gives up on is empty, and refused as such later.

        Raises:
            Refused: it is too long, or does not arrive in time.
        """
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.receive_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return b""
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.body_bytes:
                        raise Refused(f"more than {self.body_bytes} bytes", "body", 413)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(f"not complete within {self.receive_s:g} s", "body", 408) from None


class NotAllowed(Refused):
    """A method that the path does not take."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"expected {allowed.replace(', ', ' or ')}", "method", 405)
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        """With the methods that it does take."""
        return {"Allow": self.allowed}


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return pending.pop() if pending else await receive()

    return next_message


class _Responder:
    """Passes a response on with the request's id, and remembers its status."""

    def __init__(self, send: Send, identity: bytes) -> None:
        self._send, self._identity, self.status = send, identity, 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (_ID, self._identity)]
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answers with an error, and counts it."""
        REFUSED.labels(str(refused.status)).inc()
        body = orjson.dumps(refused.body())
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
        if refused.status in (408, 413):
            headers["connection"] = "close"  # the rest of the body is not read
        start = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refused.status, "headers": start})
        await self._send({"type": "http.response.body", "body": body})
