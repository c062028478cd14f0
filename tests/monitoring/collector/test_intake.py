"""What is refused, by field, and that nothing of it is stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitoring.collector.app import create_app
from monitoring.collector.intake import Intake, Refused
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from newfound.events import BATCH, STRUCTURED, envelope
from tests.monitoring import servers as parts

CONFIG = MonitoringConfig(body_bytes=200_000, batch_events=50)
SECRET = parts.SECRET.encode()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(f"sqlite:///{tmp_path_factory.mktemp('intake')}/events.db", SECRET)


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(store, CONFIG, SECRET), raise_server_exceptions=False) as client:
        yield client


def _send(client: TestClient, content: Any, kind: str = STRUCTURED, **headers: str) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post("/v1/events", content=body, headers={"content-type": kind, **headers})


def _changed(event: Any, **data: Any) -> dict[str, Any]:
    sent = envelope(event, "/tests")
    return {**sent, "data": {**sent["data"], **data}}


def test_all_three_modes_and_a_repetition(client: TestClient, store: Store) -> None:
    before = store.counts()
    assert _send(client, envelope(parts.feedback("s"), "/tests")).json() == {"durable": 1}
    binary = envelope(parts.feedback("b"), "/tests")
    headers = {f"ce-{name}": value for name, value in binary.items() if name not in ("data", "datacontenttype")}
    assert _send(client, binary["data"], "application/json", **headers).status_code == 200
    many = parts.batch([parts.recommendation("m"), parts.feedback("m")])
    for _ in range(2):
        assert _send(client, many, BATCH).status_code == 200
    after = store.counts()
    assert after["feedback"] - before["feedback"] == 3
    assert after["recommendations"] - before["recommendations"] == 1
    metrics = client.get("/metrics").text
    assert 'newfound_collector_events_total{outcome="duplicate",table="any"} 2.0' in metrics


def test_kserves_logger_is_counted_without_its_bodies(client: TestClient, store: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    for kind, body in (
        ("request", {"instances": [{"user_id": "secret-user"}] * 3}),
        ("response", {"predictions": [1]}),
    ):
        headers = {
            "ce-specversion": "1.0",
            "ce-id": "call-1",
            "ce-source": "http://localhost:9081/",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "ce-time": now,
            "ce-inferenceservicename": "newfound",
            "ce-namespace": "default",
        }
        assert _send(client, body, "application/json", **headers).status_code == 200
    assert store.counts()["inferences"] == 2
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT kind, instances, service FROM inferences ORDER BY seq").all()
    assert [tuple(row) for row in rows] == [("request", 3, "newfound"), ("response", 1, "newfound")]


_INFERENCE = {
    "specversion": "1.0",
    "id": "call",
    "source": "/kserve",
    "type": "org.kubeflow.serving.inference.request",
    "time": datetime.now(UTC).isoformat(),
    "inferenceservicename": "newfound",
    "data": {"instances": []},
}
OLD = datetime.now(UTC) - timedelta(days=60)


@pytest.mark.parametrize(
    ("content", "kind", "status", "field"),
    [
        (b"{", STRUCTURED, 400, "(body)"),
        (b"\xff\xfe", STRUCTURED, 400, "(body)"),
        (b"[" * 100_000, STRUCTURED, 400, "(body)"),
        (b"[]", BATCH, 422, "(body)"),
        (b"{}", STRUCTURED, 422, "type"),
        (envelope(parts.feedback(1), "/t"), "text/plain", 415, "content-type"),
        ({**envelope(parts.feedback(1), "/t"), "specversion": "0.3"}, STRUCTURED, 422, "specversion"),
        ({**envelope(parts.feedback(1), "/t"), "type": "com.example"}, STRUCTURED, 422, "type"),
        ({**envelope(parts.feedback(1), "/t"), "id": "other"}, STRUCTURED, 422, "data.id"),
        (_changed(parts.feedback(1), kind="bought"), STRUCTURED, 422, "data.kind"),
        (_changed(parts.feedback(1), item=50), STRUCTURED, 422, "data.item"),
        (_changed(parts.feedback(1), item="a\u0000b"), STRUCTURED, 422, "data.item"),
        (_changed(parts.feedback(1), user_id="u" * 300), STRUCTURED, 422, "data.user_id"),
        (_changed(parts.feedback(1), kind="watched", share=1.5), STRUCTURED, 422, "data.share"),
        (_changed(parts.feedback(1), at="yesterday"), STRUCTURED, 422, "data.at"),
        (_changed(parts.feedback(1), at="2026-01-01T00:00:00"), STRUCTURED, 422, "data.at"),
        (_changed(parts.feedback(1), at="0001-01-01T00:00:00+23:00"), STRUCTURED, 422, "data.at"),
        ({**_INFERENCE, "inferenceservicename": "new\0found"}, STRUCTURED, 422, "inferenceservicename"),
        ({**_INFERENCE, "id": "call\0"}, STRUCTURED, 422, "id"),
        (_changed(parts.feedback(1), at=OLD.isoformat()), STRUCTURED, 422, "data.at"),
        (_changed(parts.feedback(1), extra=1), STRUCTURED, 422, "data.extra"),
        (_changed(parts.recommendation(1), user_key="0" * 32), STRUCTURED, 422, "data.user_key"),
        (_changed(parts.recommendation(1), seed=-1), STRUCTURED, 422, "data.seed"),
        (_changed(parts.recommendation(1), slots=[]), STRUCTURED, 422, "data.slots"),
        (_changed(parts.recommendation(1), latency_ms="3"), STRUCTURED, 422, "data.latency_ms"),
        (b" " * 300_000, STRUCTURED, 413, "(body)"),
        ([envelope(parts.feedback(n), "/t") for n in range(51)], BATCH, 422, "(body)"),
    ],
)
def test_refused_by_field(client: TestClient, store: Store, content: Any, kind: str, status: int, field: str) -> None:
    before = store.counts()
    answer = _send(client, content, kind)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"][0]["field"] == field
    assert store.counts() == before


def test_nan_is_no_number(client: TestClient) -> None:
    sent = json.dumps(_changed(parts.recommendation(1), latency_ms=float("nan"))).encode()
    assert b"NaN" in sent
    answer = _send(client, sent)
    assert answer.status_code in (400, 422), answer.text


def test_a_refusal_names_every_event_at_fault_and_the_rest_is_taken_then(client: TestClient, store: Store) -> None:
    before = store.counts()
    many = parts.batch([parts.feedback(f"x{n}") for n in range(40)])
    for bad in (1, 5):
        many[bad]["data"]["kind"] = "bought"
    many[7]["data"]["at"] = OLD.isoformat()
    many[9] = {"no": "event"}
    many[11] = 11
    answer = _send(client, many, BATCH)
    assert (answer.status_code, answer.json()["events"]) == (422, [1, 5, 9, 11]), "what cannot be read comes first"
    assert answer.json()["detail"][0]["event"] == 1 and store.counts() == before
    rest = [event for index, event in enumerate(many) if index not in answer.json()["events"]]
    answer = _send(client, rest, BATCH)
    assert (answer.status_code, answer.json()["events"]) == (422, [5])
    rest.pop(5)
    assert _send(client, rest, BATCH).json() == {"durable": 35}
    assert store.counts()["feedback"] - before["feedback"] == 35


def test_every_event_of_a_bad_batch_is_named(client: TestClient) -> None:
    many = parts.batch([parts.feedback(f"y{n}") for n in range(50)])
    for event in many:
        event["data"]["item"] = ""
    answer = _send(client, many, BATCH).json()
    assert answer["events"] == list(range(50)) and len(answer["detail"]) == 20


def test_an_event_from_a_clock_ahead_is_taken_as_of_its_arrival(client: TestClient, store: Store) -> None:
    """A sender whose clock is wrong must not lose everything that it sends."""
    ahead = datetime.now(UTC) + timedelta(seconds=CONFIG.future_seconds + 60)
    before = datetime.now(UTC)
    for _ in range(2):
        answer = _send(client, parts.batch([parts.feedback("ahead", at=ahead), parts.recommendation("ahead")]), BATCH)
        assert answer.json() == {"durable": 2}
    with store.engine.connect() as connection:
        at = connection.exec_driver_sql("SELECT at FROM feedback WHERE id = 'fahead'").scalar_one()
    assert micros(before) <= at <= micros(datetime.now(UTC))
    assert "newfound_collector_corrected_clocks_total 2.0" in client.get("/metrics").text


def test_another_event_with_a_known_id_is_refused_and_counted(client: TestClient, store: Store) -> None:
    mine = parts.feedback("mine", user_id="42", item="50", kind="liked")
    assert _send(client, envelope(mine, "/one")).json() == {"durable": 1}
    assert _send(client, envelope(mine, "/another/way")).json() == {"durable": 1}, "the same event once more"
    before = store.counts()
    theirs = parts.feedback("mine", user_id="43", item="51", kind="liked", at=mine.at)
    answer = _send(client, parts.batch([parts.feedback("good"), theirs]), BATCH)
    assert answer.status_code == 409
    assert answer.json()["events"] == [1] and "another event" in answer.json()["detail"][0]["problem"]
    assert store.counts() == before
    assert 'newfound_collector_refused_events_total{status="409"} 1.0' in client.get("/metrics").text


def test_a_users_feedback_of_a_day_is_bounded(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/quota.db", SECRET, quota=30)
    with TestClient(create_app(store, CONFIG, SECRET)) as client:
        first = parts.batch([parts.feedback(n, user_id="greedy") for n in range(29)])
        assert _send(client, first, BATCH).json() == {"durable": 29}
        more = parts.batch([parts.feedback(f"m{n}", user_id=user) for n, user in enumerate(["greedy"] * 2 + ["other"])])
        answer = _send(client, more, BATCH)
        assert (answer.status_code, answer.json()["events"]) == (422, [1])
        assert _send(client, [more[0], more[2]], BATCH).json() == {"durable": 2}
        assert _send(client, first, BATCH).json() == {"durable": 29}, "what is known already counts no second time"
        yesterday = envelope(parts.feedback("old", user_id="greedy", at=datetime.now(UTC) - timedelta(days=1)), "/t")
        assert _send(client, yesterday).json() == {"durable": 1}


def _bombs() -> Iterator[Any]:
    event = envelope(parts.recommendation(1), "/t")
    # Six problems for every three bytes, a thousand slots an event.
    yield [{**event, "data": {**event["data"], "slots": [{}] * 1000}}] * 500
    yield [{}] * 600_000
    yield [[]] * 600_000
    yield [{**_INFERENCE, "data": [[]] * 600_000}]


def test_a_body_of_two_megabytes_makes_no_gigabytes() -> None:
    """In a process of its own, whose memory has a limit."""
    code = "from tests.monitoring.collector.test_intake import _read_bombs; _read_bombs()"
    done = subprocess.run([sys.executable, "-c", code], cwd=parts.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def _read_bombs() -> None:
    bodies = [json.dumps(bomb, separators=(",", ":")).encode() for bomb in _bombs()]
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
    for body in bodies:
        assert 1_000_000 < len(body) < MonitoringConfig().body_bytes
        with contextlib.suppress(Refused):
            Intake(MonitoringConfig(), SECRET).read({"content-type": BATCH}, body, datetime.now(UTC))


@pytest.mark.parametrize(("seconds", "status"), [(0, 200), (1.5, 408)])
def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, seconds: float, status: int) -> None:
    app = create_app(Store(f"sqlite:///{tmp_path}/e.db", SECRET), CONFIG.model_copy(update={"body_seconds": 1}), SECRET)

    async def body() -> AsyncIterator[bytes]:
        content = json.dumps(envelope(parts.feedback("slow"), "/t")).encode()
        yield content[:20]
        await asyncio.sleep(seconds)
        yield content[20:]

    async def send() -> int:
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            answer = await client.post("http://c/v1/events", content=body(), headers={"content-type": STRUCTURED})
            return answer.status_code

    assert asyncio.run(send()) == status


def test_bodies_that_wait_together_are_bounded(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"bodies_bytes": 250_000})
    app = create_app(Store(f"sqlite:///{tmp_path}/e.db", SECRET), config, SECRET)

    async def body(started: asyncio.Event, go_on: asyncio.Event) -> AsyncIterator[bytes]:
        yield b" " * 150_000
        started.set()
        await go_on.wait()
        yield json.dumps(envelope(parts.feedback("big"), "/t")).encode()

    async def send() -> list[int]:
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            started, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
            headers = {"content-type": STRUCTURED}
            first = asyncio.create_task(client.post("http://c/", content=body(started, go_on), headers=headers))
            await started.wait()
            second = await client.post("http://c/", content=body(over, go_on), headers=headers)
            go_on.set()
            statuses = [second.status_code, (await first).status_code]
            return [*statuses, (await client.post("http://c/", content=body(over, go_on), headers=headers)).status_code]

    assert asyncio.run(send()) == [503, 200, 200]


def test_binary_mode_names_its_headers(client: TestClient) -> None:
    data = envelope(parts.feedback("h"), "/t")["data"]
    headers = {"ce-specversion": "1.0", "ce-id": "fh", "ce-type": "newfound.feedback.v1"}
    answer = _send(client, data, "application/json", **headers)
    assert (answer.status_code, answer.json()["detail"][0]["field"]) == (422, "source")


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/e.db", SECRET)
    with TestClient(create_app(store, CONFIG, SECRET, token="t0ken")) as client:
        event = envelope(parts.feedback("t"), "/tests")
        assert _send(client, event).status_code == 401
        assert _send(client, event, authorization="Bearer nope").status_code == 401
        assert store.counts()["feedback"] == 0
        assert _send(client, event, authorization="Bearer t0ken").status_code == 200


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from([STRUCTURED, BATCH, "application/json"]),
    st.sampled_from(["", "data", "data.slots", "data.slots.0.candidates", "data.at", "id", "time"]),
)
def test_nothing_makes_it_fail(client: TestClient, value: Any, kind: str, place: str) -> None:
    sent: Any = envelope(parts.recommendation("z"), "/t")
    if place:
        target = sent
        *parents, leaf = place.split(".")
        for name in parents:
            target = target[int(name) if isinstance(target, list) else name]
        target[leaf] = value
    else:
        sent = value
    body = json.dumps([sent] if kind == BATCH else sent).encode("utf-8", "surrogatepass")
    assert _send(client, body, kind).status_code < 500
