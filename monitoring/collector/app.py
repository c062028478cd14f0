"""The collector's HTTP side: `POST /v1/events` (or `/`), health, metrics."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from monitoring.collector.commit import Busy, GroupCommit
from monitoring.collector.intake import Intake, Refused
from monitoring.settings import MonitoringConfig
from monitoring.store.database import FeedbackEvent, Store, Stored, Written

if TYPE_CHECKING:  # it brings pyarrow along, which a collector without Feast can start without
    from monitoring.collector.pusher import Pusher

log: Final = logging.getLogger("newfound.monitoring.collector")
_AGES: Final = (0.1, 0.5, 1, 5, 30, 300, 3600, 86_400)


class Metrics:
    """The collector's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "newfound_collector_events", "Events by table and outcome", ["table", "outcome"], registry=self.registry
        )
        self.refused = Counter("newfound_collector_refused", "Requests refused", ["status"], registry=self.registry)
        self.commit = Histogram("newfound_collector_commit_seconds", "One transaction", registry=self.registry)
        self.size = Histogram(
            "newfound_collector_commit_events",
            "Events of a transaction",
            buckets=(1, 10, 100, 1000, 5000),
            registry=self.registry,
        )
        self.age = Histogram(
            "newfound_collector_event_age_seconds",
            "From the event to its commit",
            buckets=_AGES,
            registry=self.registry,
        )
        self.waiting = Gauge("newfound_collector_queue_events", "Events waiting for commit", registry=self.registry)
        self.lag = Gauge(
            "newfound_collector_history_lag_seconds",
            "Age of the oldest feedback that Feast does not have yet",
            registry=self.registry,
        )
        self.pushed = Gauge("newfound_collector_histories_pushed", "Histories written to Feast", registry=self.registry)
        for table in ("recommendations", "feedback", "inferences"):
            self.events.labels(table, "stored")
        self.events.labels("any", "duplicate")

    def written(self, written: Written, events: Sequence[Stored], seconds: float) -> None:
        """Counts one commit."""
        for table, new in written.new.items():
            self.events.labels(table, "stored").inc(new)
        self.events.labels("any", "duplicate").inc(written.duplicates)
        self.commit.observe(seconds)
        self.size.observe(len(events))
        now = time.time()
        for event in events:
            self.age.observe(max(0.0, now - event.at.timestamp()))


def create_app(
    store: Store,
    config: MonitoringConfig,
    secret: bytes,
    *,
    token: str | None = None,
    pusher: Pusher | None = None,
) -> FastAPI:
    """The collector over an open store.

    Args:
        store: where events go.
        config: bounds.
        secret: key of the users' hashes, shared with the explorer.
        token: senders must present it as a bearer token; None leaves that to the gateway.
        pusher: keeps Feast's histories fresh; None leaves them alone.
    """
    metrics = Metrics()
    intake = Intake(config, secret)

    def written(done: Written, events: Sequence[Stored], seconds: float) -> None:
        metrics.written(done, events, seconds)
        if pusher is not None and any(isinstance(event, FeedbackEvent) for event in events):
            pusher.wake()

    commit = GroupCommit(store, commit_events=config.commit_events, queue_events=config.queue_events, written=written)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        commit.start()
        if pusher is not None:
            pusher.start()
        yield
        await commit.stop()
        if pusher is not None:
            pusher.stop()
        store.close()

    app = FastAPI(title="newfound collector", lifespan=lifespan, docs_url=None, redoc_url=None)

    async def receive(request: Request) -> Response:
        try:
            if token is not None:
                given = request.headers.get("authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                    raise Refused(401, [{"field": "authorization", "problem": "expected the collector's bearer token"}])
            body = await _bounded_body(request, config.body_bytes)
            events = intake.read(request.headers, body, datetime.now(UTC))
            await commit.put(events)
        except Refused as refused:
            metrics.refused.labels(str(refused.status)).inc()
            return JSONResponse({"detail": refused.problems}, refused.status)
        except Busy as busy:
            metrics.refused.labels("503").inc()
            return JSONResponse({"detail": [{"problem": str(busy)}]}, 503, {"Retry-After": "1"})
        return JSONResponse({"durable": len(events)})

    app.add_api_route("/v1/events", receive, methods=["POST"])
    app.add_api_route("/", receive, methods=["POST"])  # where eventing systems and KServe's logger send by default

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    def readyz() -> Response:
        try:
            store.progress_of("ready")
        except Exception as error:  # the drivers' errors differ
            return JSONResponse({"status": f"store: {type(error).__name__}"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics")
    def export() -> Response:
        metrics.waiting.set(commit.waiting_events)
        if pusher is not None:
            metrics.lag.set(pusher.lag())
            metrics.pushed.set(pusher.pushed)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _bounded_body(request: Request, limit: int) -> bytes:
    """The body, given up as soon as it is too large, whatever its length header says."""
    too_large = Refused(413, [{"field": "(body)", "problem": f"larger than {limit} bytes"}])
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)
