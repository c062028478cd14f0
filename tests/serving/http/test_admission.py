"""Admission: requests that pass, and requests that are refused before anything else sees them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from serving.http.admission import AdmissionMiddleware
from serving.http.context import Capacity, current

PREDICT = "/v1/models/newfound:predict"
JSON = {"content-type": "application/json"}


class App:
    """Answers with what reached it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.seen.append({"headers": dict(scope["headers"]), "body": body, "context": current()})
        await self.hold.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def admission_of(app: Any, limit: int = 2, receive_s: float = 5.0, pages: str = "") -> AdmissionMiddleware:
    return AdmissionMiddleware(app, Capacity(limit), body_bytes=100, receive_s=receive_s, pages=pages)


def send(method: str, path: str, **arguments: Any) -> tuple[httpx.Response, App]:
    async def story() -> tuple[httpx.Response, App]:
        app = App()
        transport = httpx.ASGITransport(app=admission_of(app, pages=r"/page(/.*)?"))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **arguments), app

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status", "field"),
    [
        ("POST", PREDICT, {"content": b"{}"}, 415, "Content-Type"),
        ("POST", PREDICT, {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "Content-Type"),
        ("POST", PREDICT, {"content": b"x" * 101, "headers": JSON}, 413, "body"),
        ("POST", PREDICT, {"content": iter([b"x" * 60, b"x" * 60]), "headers": JSON}, 413, "body"),
        ("POST", PREDICT, {"content": b"{}", "headers": {**JSON, "ce-id": "1"}}, 400, "headers"),
        (
            "POST",
            PREDICT,
            {"content": b"{}", "headers": {**JSON, "inference-header-content-length": "x"}},
            400,
            "headers",
        ),
        ("GET", PREDICT, {}, 405, "method"),
        ("PUT", "/v1/models/newfound", {}, 405, "method"),
        ("POST", "/v2/repository/models/newfound/unload", {"headers": JSON}, 404, "path"),
        ("POST", "/v1/models/newfound:explain", {"headers": JSON, "content": b"{}"}, 404, "path"),
        ("GET", "/elsewhere", {}, 404, "path"),
    ],
)
def test_refusals_name_what_is_to_blame(method, path, arguments, status, field):
    if not isinstance(arguments.get("content", b""), bytes):
        parts = list(arguments["content"])

        async def stream() -> Any:
            for part in parts:
                yield part

        arguments = {**arguments, "content": stream()}
    response, app = send(method, path, **arguments)
    assert response.status_code == status and response.json()["field"] == field and not app.seen


def test_requests_come_through_with_a_context_that_headers_do_not_make():
    began = time.monotonic()
    headers = {**JSON, "content-type": "application/json; charset=utf-8", "x-newfound-arrived": "1e18"}
    response, app = send("POST", PREDICT, content=b'{"a": 1}', headers={**headers, "x-newfound-timeout-ms": "150"})
    (seen,) = app.seen
    assert response.status_code == 200 and seen["body"] == b'{"a": 1}'
    assert began <= seen["context"].arrived <= time.monotonic() and seen["context"].timeout_s == 0.15
    assert seen["context"].id == seen["headers"][b"x-request-id"].decode() == response.headers["x-request-id"]


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "1e400", "", "1 ms", "٣"])
def test_a_timeout_that_is_no_plain_number_is_none(given):
    headers = [(b"content-type", b"application/json"), (b"x-newfound-timeout-ms", given.encode())]
    _, app = send("POST", PREDICT, content=b"{}", headers=headers)
    assert app.seen[0]["context"].timeout_s is None


@pytest.mark.parametrize("given", ["ok-1.2:3", "x" * 129, "a b", "{evil}"])
def test_only_plain_request_ids_are_kept(given):
    response, _ = send("POST", PREDICT, content=b"{}", headers={**JSON, "x-request-id": given})
    assert (response.headers["x-request-id"] == given) == (given == "ok-1.2:3")


def test_what_is_too_much_at_a_time_is_refused_at_once_and_later_taken_again():
    async def story() -> None:
        app = App()
        app.hold.clear()
        admission = admission_of(app)
        transport = httpx.ASGITransport(app=admission)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

            async def post() -> httpx.Response:
                return await client.post(PREDICT, content=b"{}", headers=JSON)

            loaded = [asyncio.create_task(post()) for _ in range(2)]
            while len(app.seen) < 2:
                await asyncio.sleep(0)
            shed = await post()
            assert shed.status_code == 503 and shed.headers["retry-after"] == "1"
            assert (await client.get("/metrics")).status_code == 200 if app.hold.set() is None else False
            assert [response.status_code for response in await asyncio.gather(*loaded)] == [200, 200]
            assert (await post()).status_code == 200 and admission.capacity.running == 0

    asyncio.run(story())


def test_pages_only_where_they_are_switched_on():
    assert send("GET", "/page/app.js")[0].status_code == 200
    assert send("GET", "/pages")[0].status_code == 404


def test_websockets_are_closed():
    async def story() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await admission_of(App())({"type": "websocket"}, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(story())[0]["type"] == "websocket.close"


def test_bodies_that_stop_half_way_hold_none_of_the_capacity():
    async def story() -> None:
        app = App()
        admission = admission_of(app, receive_s=0.2)
        scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": [(b"content-type", b"application/json")]}
        statuses: list[int] = []

        async def stopping() -> Any:
            if not statuses:
                await asyncio.sleep(3600)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                assert (b"connection", b"close") in message["headers"]

        half = [asyncio.create_task(admission(dict(scope), stopping, told)) for _ in range(64)]  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app=admission)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.post(PREDICT, content=b"{}", headers=JSON)).status_code == 200
        await asyncio.wait_for(asyncio.gather(*half), 10)
        assert statuses == [408] * 64 and admission.capacity.running == 0 and len(app.seen) == 1

    asyncio.run(story())


def test_capacity_taken_by_the_model_is_given_back():
    class Taking(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            current().take(3)
            await super().__call__(scope, receive, send)

    async def story() -> None:
        app = Taking()
        admission = admission_of(app, limit=4)
        app.hold.clear()
        transport = httpx.ASGITransport(app=admission)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            first = asyncio.create_task(client.post(PREDICT, content=b"{}", headers=JSON))
            while not app.seen:
                await asyncio.sleep(0)
            assert admission.capacity.running == 3
            assert (await client.post(PREDICT, content=b"{}", headers=JSON)).status_code == 503
            app.hold.set()
            assert (await first).status_code == 200 and admission.capacity.running == 0

    asyncio.run(story())
