"""Admission of requests: the outermost ASGI middleware of both services.

KServe's server takes bodies of any size, answers some malformed requests with 500, lets anyone unload a model, and has
no bound on requests in flight. This middleware refuses such requests before they reach it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import orjson

from serving.metrics import REFUSED, REQUEST_SECONDS, SHED

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Predict = Callable[[str, Message, bytes, dict[bytes, bytes], Send], Awaitable[None]]

ARRIVED: Final = b"x-newfound-arrived"
REQUEST_ID: Final = b"x-request-id"
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_READ: Final = (
    r"/|/metrics|/openapi\.json|/docs|/releases|/v1/models|/v1/models/[^/:]+|/v2|/v2/health/(live|ready)|/v2/models"
    r"|/v2/models/[^/]+(/ready)?"
)
_WORK: Final = r"/v1/models/(?P<model>[^/]+):predict|/v2/models/[^/]+/infer"


class AdmissionMiddleware:
    """Refuses requests that are malformed, too large or too many.

    Args:
        app: what is behind it.
        body_bytes: most bytes in a body.
        in_flight: most requests being worked on; a further one is answered 503 at once.
        pages: pattern of further paths that may be read.
        predict: answers v1 predictions in the app's stead.
    """

    def __init__(
        self, app: App, body_bytes: int, in_flight: int, pages: str = "", predict: Predict | None = None
    ) -> None:
        self.app, self.body_bytes, self.in_flight, self.predict = app, body_bytes, in_flight, predict
        self.running = 0
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
        headers = {name: value for name, value in scope["headers"] if name != ARRIVED}
        request_id = headers.get(REQUEST_ID, b"")
        if not _PLAIN_ID.fullmatch(request_id):
            request_id = headers[REQUEST_ID] = secrets.token_hex(8).encode()
        path, method = scope["path"], scope["method"]
        work = self._work.fullmatch(path)
        respond = _Responder(send, request_id)
        refusal = self._refuse(method, path, work is not None, headers)
        if refusal is not None:
            await respond.refuse(*refusal)
            return
        if work is None:
            await self.app(scope, receive, respond)
            return
        if self.running >= self.in_flight:
            SHED.inc()
            await respond.refuse(503, "too many requests in flight; try again", None, [(b"retry-after", b"1")])
            return
        self.running += 1
        try:
            body = await self._read_body(receive)
            if body is None:
                await respond.refuse(413, f"more than {self.body_bytes} bytes", "body")
                return
            headers[ARRIVED] = repr(began).encode()
            scope["headers"] = list(headers.items())
            if self.predict is not None and (model := work["model"]) is not None:
                await self.predict(model, scope, body, headers, respond)
            else:
                await self.app(scope, _replay(body, receive), respond)
        finally:
            self.running -= 1
            REQUEST_SECONDS.labels(str(respond.status)).observe(time.monotonic() - began)

    def _refuse(
        self, method: str, path: str, work: bool, headers: dict[bytes, bytes]
    ) -> tuple[int, str, str | None, list[tuple[bytes, bytes]]] | None:
        if not work and not self._read.fullmatch(path):
            return 404, "there is nothing here", "path", []
        allowed = ("POST",) if work else ("GET", "HEAD")
        if method not in allowed:
            return 405, f"expected {' or '.join(allowed)}", "method", [(b"allow", ", ".join(allowed).encode())]
        if not work:
            return None
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            return 415, "expected application/json", "Content-Type", []
        if b"inference-header-content-length" in headers or any(name.startswith(b"ce-") for name in headers):
            return 400, "binary tensors and CloudEvents are not taken here", "headers", []
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.body_bytes:
            return 413, f"more than {self.body_bytes} bytes", "body", []
        return None

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The body; None where it is too long. One that its sender gives up on is empty, and refused as such later."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b""
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.body_bytes:
                return None
            if not message.get("more_body"):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return pending.pop() if pending else await receive()

    return next_message


class _Responder:
    """Passes a response on with the request's id, and remembers its status."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send, self._request_id, self.status = send, request_id, 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, self._request_id)]
        await self._send(message)

    async def refuse(
        self, status: int, problem: str, field: str | None, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Answers with an error, and counts it."""
        REFUSED.labels(str(status)).inc()
        text = problem if field is None else f"{field}: {problem}"
        body = orjson.dumps({"error": text, "field": field})
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or ())]
        if status == 413:
            start.append((b"connection", b"close"))  # the rest of the body is not read
        await self({"type": "http.response.start", "status": status, "headers": start})
        await self._send({"type": "http.response.body", "body": body})
