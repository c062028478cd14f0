"""What is refused, by field, and that nothing of it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitoring.collector.app import create_app
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
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


FAR = datetime.now(UTC) + timedelta(hours=1)
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
        (_changed(parts.feedback(1), at=FAR.isoformat()), STRUCTURED, 422, "data.at"),
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


def test_one_bad_event_refuses_its_batch_by_index(client: TestClient, store: Store) -> None:
    before = store.counts()
    many = parts.batch([parts.feedback("x1"), parts.feedback("x2")])
    many[1]["data"]["kind"] = "bought"
    answer = _send(client, many, BATCH)
    assert (answer.status_code, answer.json()["detail"][0]["event"]) == (422, 1)
    assert store.counts() == before


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
