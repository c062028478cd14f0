"""Admission: requests that pass, and requests that are refused before anything else sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from serving.http.admission import AdmissionMiddleware

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
        self.seen.append({"headers": dict(scope["headers"]), "body": body})
        await self.hold.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def send(method: str, path: str, **arguments: Any) -> tuple[httpx.Response, App]:
    async def story() -> tuple[httpx.Response, App]:
        app = App()
        transport = httpx.ASGITransport(app=AdmissionMiddleware(app, body_bytes=100, in_flight=2, pages=r"/page(/.*)?"))
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


def test_requests_come_through_with_an_id_and_the_time_of_their_arrival():
    headers = {"content-type": "application/json; charset=utf-8", "x-newfound-arrived": "0"}
    response, app = send("POST", PREDICT, content=b'{"a": 1}', headers=headers)
    assert response.status_code == 200 and app.seen[0]["body"] == b'{"a": 1}'
    assert float(app.seen[0]["headers"][b"x-newfound-arrived"]) > 0
    assert app.seen[0]["headers"][b"x-request-id"].decode() == response.headers["x-request-id"]


@pytest.mark.parametrize("given", ["ok-1.2:3", "x" * 129, "a b", "{evil}"])
def test_only_plain_request_ids_are_kept(given):
    response, _ = send("POST", PREDICT, content=b"{}", headers={**JSON, "x-request-id": given})
    assert (response.headers["x-request-id"] == given) == (given == "ok-1.2:3")


def test_what_is_too_much_at_a_time_is_refused_at_once_and_later_taken_again():
    async def story() -> None:
        app = App()
        app.hold.clear()
        admission = AdmissionMiddleware(app, body_bytes=100, in_flight=2)
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
            assert (await post()).status_code == 200 and admission.running == 0

    asyncio.run(story())


def test_pages_only_where_they_are_switched_on():
    assert send("GET", "/page/app.js")[0].status_code == 200
    assert send("GET", "/pages")[0].status_code == 404


def test_websockets_are_closed():
    async def story() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await AdmissionMiddleware(App(), 1, 1)({"type": "websocket"}, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(story())[0]["type"] == "websocket.close"
