"""Bad requests: 4xx that name the field, never 5xx; by hand, by OpenAPI, and by ten thousand mutations."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx
import pytest

JSON = {"content-type": "application/json"}


def v1(**instance: Any) -> bytes:
    return json.dumps({"instances": [instance]}).encode()


CASES: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"{", "body"),
    (b"null", "body"),
    (b"[]", "body"),
    (b'"text"', "body"),
    (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", "body"),
    (b'{"instances": [{"user_id": "\xff"}]}', "body"),
    (b'{"instances": [{"user_id": "\\ud800"}]}', "body"),
    (b'{"instances": [{"user_id": "u", "novel": NaN}]}', "body"),
    (b"{}", "instances"),
    (b'{"instances": []}', "instances"),
    (b'{"instances": "u1"}', "instances"),
    (b'{"instances": {"user_id": "u1"}}', "instances"),
    (b'{"instances": [1]}', "instances[0]"),
    (b'{"instances": [{"user_id": "u1"}], "more": 1}', "more"),
    (b'{"instances": [' + b"{}," * 100_000 + b"{}]}", "instances"),
    (json.dumps({"instances": [{"user_id": "u"}] * 65}).encode(), "instances"),
    (v1(), "instances[0]"),
    (v1(user_id=7), "instances[0].user_id"),
    (v1(user_id=""), "instances[0].user_id"),
    (v1(user_id="x" * 257), "instances[0].user_id"),
    (v1(user_id="a\x00b"), "instances[0].user_id"),
    (v1(user_id="u", k=0), "instances[0].k"),
    (v1(user_id="u", k=101), "instances[0].k"),
    (v1(user_id="u", k="10"), "instances[0].k"),
    (v1(user_id="u", k=True), "instances[0].k"),
    (v1(user_id="u", k=10**30), "instances[0].k"),
    (v1(user_id="u", novel=-1), "instances[0].novel"),
    (v1(user_id="u", novel=1.5), "instances[0].novel"),
    (v1(user_id="u", novel="many"), "instances[0].novel"),
    (v1(user_id="u", seed=-1), "instances[0].seed"),
    (v1(user_id="u", seed=2**53), "instances[0].seed"),
    (v1(user_id="u", deadline_ms=0), "instances[0].deadline_ms"),
    (v1(user_id="u", deadline_ms=10**6), "instances[0].deadline_ms"),
    (v1(user_id="u", exclude="i1"), "instances[0].exclude"),
    (v1(user_id="u", exclude=["i"] * 2001), "instances[0].exclude"),
    (v1(user_id="u", exclude=[None]), "instances[0].exclude[0]"),
    (v1(user_id="u", unknown=1), "instances[0].unknown"),
    (v1(history=["i"] * 2001), "instances[0].history"),
    (v1(history=[{"item": "i", "engagement": 2}]), "instances[0].history[0].engagement"),
    (v1(history=[{"engagement": 1}]), "instances[0].history[0].item"),
    (v1(history=[["nested"]]), "instances[0].history[0]"),
]


@pytest.mark.parametrize(("body", "field"), CASES, ids=range(len(CASES)))
def test_v1_refuses_and_names_the_field(stack, body, field):
    response = httpx.post(f"{stack.url}/v1/models/newfound:predict", content=body, headers=JSON)
    assert response.status_code == 400, response.text
    named = response.json()["field"]
    assert named == field or (field.endswith("]") and named.startswith(field)), response.text
    assert len(response.text) < 500, "what was sent is not sent back"


TENSOR = {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u1"]}
V2: list[tuple[Any, str]] = [
    ({}, "inputs"),
    ({"inputs": []}, "inputs"),
    ({"inputs": [{**TENSOR, "name": "other"}]}, "inputs.name"),
    ({"inputs": [TENSOR, TENSOR]}, "inputs.user_id"),
    ({"inputs": [{**TENSOR, "datatype": "FP32"}]}, "inputs.user_id.datatype"),
    ({"inputs": [{**TENSOR, "shape": [2]}]}, "inputs.user_id.shape"),
    ({"inputs": [{**TENSOR, "shape": [1, 1, 1]}]}, "inputs.user_id.shape"),
    ({"inputs": [{**TENSOR, "data": [1]}]}, "instances[0].user_id"),
    ({"inputs": [{**TENSOR, "data": None}]}, "inputs[0].data"),
    ({"inputs": [TENSOR, {"name": "k", "datatype": "INT32", "shape": [2], "data": [1, 2]}]}, "inputs.k"),
    ({"inputs": [TENSOR, {"name": "k", "datatype": "INT32", "shape": [1], "data": [1000]}]}, "instances[0].k"),
    ({"inputs": [{"name": "request", "datatype": "BYTES", "shape": [1], "data": ["{"]}]}, "inputs.request"),
    ({"inputs": [{"name": "request", "datatype": "BYTES", "shape": [1], "data": ["[]"]}]}, "inputs.request"),
    ({"inputs": "x"}, "inputs"),
    ([], "body"),
]


@pytest.mark.parametrize(("body", "field"), V2, ids=range(len(V2)))
def test_v2_refuses_and_names_the_field(stack, body, field):
    response = httpx.post(f"{stack.url}/v2/models/newfound/infer", json=body)
    assert response.status_code == 400 and response.json()["field"] == field, response.text


def test_oversized_bodies_are_refused_without_being_read(stack):
    body = b'{"instances": [' + b" " * 10_000_000 + b"]}"
    for path in ("/v1/models/newfound:predict", "/v2/models/newfound/infer"):
        try:
            response = httpx.post(f"{stack.url}{path}", content=body, headers=JSON)
            assert response.status_code == 413
        except httpx.WriteError:
            pass  # the server hung up on us in the middle
    for path in ("/v1/models/other:predict", "/v2/models/other/infer"):
        response = httpx.post(f"{stack.url}{path}", json={"instances": [{}], "inputs": []})
        assert response.status_code == 404
    many = json.dumps({"instances": [{"user_id": "u"}] * 100_000})
    response = httpx.post(f"{stack.url}/v1/models/newfound:predict", content=many, headers=JSON)
    assert response.status_code == 413 and response.json()["field"] == "body"
    assert stack.slate(user_id="u3")["items"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/octet-stream"])
@pytest.mark.parametrize("path", ["/v1/models/newfound:predict", "/v2/models/newfound/infer"])
def test_what_is_not_json_by_its_own_account_is_refused(stack, path, kind):
    headers = {} if kind is None else {"content-type": kind}
    response = httpx.post(f"{stack.url}{path}", content=v1(user_id="u3"), headers=headers)
    assert response.status_code == 415 and response.json()["field"] == "Content-Type"


HOSTILE = ["'; DROP TABLE users; --", "../../etc/passwd", "{{7*7}}", "\u202egnp.exe", "𝕦𝕟𝕚", "%00", "<b>", "a" * 256]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_are_just_strings(stack, text):
    slate = stack.slate(user_id=text, exclude=[text], k=3)
    assert len(slate["items"]) == 3 and slate["degraded"] == []
    assert len(stack.slate(history=[text, "i1.1"], k=3)["items"]) == 3


def mutate(draw: random.Random, number: int) -> bytes:
    """A request, broken somewhere: in its values, its structure, or its bytes."""
    values: list[Any] = [None, True, -1, 0, 3, 2**70, 0.5, 1e308, "", "x" * 300, [], ["i1.1"], {}, {"item": "i1.1"}]
    fitting = {
        "user_id": "u3",
        "k": 4,
        "novel": 0.5,
        "exclude": ["i1.1"],
        "history": ["i1.1", {"item": "i2.1"}],
        "seed": 1,
        "deadline_ms": 900,
    }
    instance = {name: fitting[name] for name in draw.sample(sorted(fitting), draw.randint(1, 6))}
    for name in draw.sample([*fitting, "more"], draw.choice([0, 1, 1, 2])):
        instance[name] = draw.choice(values)
    body: Any = {"instances": [instance] * draw.choice([1, 1, 2])}
    if number % 5 == 0:
        body = draw.choice([instance, [instance], {"instances": instance}, draw.choice(values)])
    raw = bytearray(json.dumps(body).encode())
    if number % 3 == 0:
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw[: draw.randint(0, len(raw))] if number % 7 == 0 else raw)


def mutate_tensors(draw: random.Random, number: int) -> bytes:
    """The same for a v2 request."""
    names = ["user_id", "k", "seed", "novel", "deadline_ms", "request", "more", "", 7]
    data: list[Any] = ["u3", 4, 0.5, -1, None, "{}", '{"user_id": "u3"}', [1], {}, 2**70, "\ud800"]
    tensors = [
        {
            "name": draw.choice(names),
            "datatype": draw.choice(["BYTES", "INT32", "INT64", "FP32", "BOOL", "", None]),
            "shape": draw.choice([[1], [1, 1], [2], [0], [-1], [], "x", [1, 2]]),
            "data": draw.choice([[draw.choice(data)], [draw.choice(data)] * 2, draw.choice(data), []]),
        }
        for _ in range(draw.randint(0, 3))
    ]
    fitting = {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u3"]}
    body = {"id": draw.choice(["a", 7, None]), "inputs": draw.choice([tensors, [fitting, *tensors], [fitting]])}
    raw = bytearray(json.dumps(body).encode())
    if number % 3 == 0:
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw[: draw.randint(0, len(raw))] if number % 11 == 0 else raw)


@pytest.mark.parametrize(
    ("path", "make", "count"),
    [("/v1/models/newfound:predict", mutate, 10_000), ("/v2/models/newfound/infer", mutate_tensors, 3_000)],
)
def test_thousands_of_mutations_bring_no_5xx(stack, path, make, count):
    from tests.benchmarks.load import Load

    draw = random.Random(20)
    bodies = [make(draw, number) for number in range(count)]
    statuses: dict[int, int] = {}

    async def story() -> None:
        load = Load(int(stack.url.rsplit(":", 1)[1]), "", [])
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()

        async def worker(part: list[bytes]) -> None:
            for body in part:
                connection = await load.connect()
                status, answer = await connection.ask(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                statuses[status] = statuses.get(status, 0) + 1
                assert status < 500 and (status == 200 or json.loads(answer)["field"]), (status, body, answer)
                load.idle.append(connection)

        await asyncio.gather(*(worker(bodies[at::8]) for at in range(8)))

    asyncio.run(story())
    assert set(statuses) == {200, 400} and min(statuses.values()) >= count / 20


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("path", ["/v1/models/newfound:predict", "/v2/models/newfound/infer"])
def test_the_openapi_document_holds_under_schemathesis(stack, path, mode):
    """What fits the document is answered or refused as it says, what does not fit is refused, and never with 5xx."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    document = httpx.get(f"{stack.url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=stack.url)
    operation = schema[path]["POST"]
    checked = 0

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def answered(case: Any) -> None:
        nonlocal checked
        response = case.call(headers=JSON)
        checked += 1
        assert response.status_code in (200, 400), response.text
        if response.status_code == 200:
            operation.validate_response(response)

    answered()
    assert checked >= 50
