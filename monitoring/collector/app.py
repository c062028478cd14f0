"""The collector's HTTP side: `POST /v1/events` (or `/`), health, metrics."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitoring.collector.commit import Busy, GroupCommit
from monitoring.collector.intake import Intake, Refused
from monitoring.collector.metrics import Metrics
from monitoring.settings import MonitoringConfig
from monitoring.store.database import FeedbackEvent, Store, Stored, Written

if TYPE_CHECKING:  # it brings pyarrow along, which a collector without Feast can start without
    from monitoring.collector.pusher import Pusher


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
    collector = Collector(store, config, secret, token, pusher)
    app = FastAPI(title="newfound collector", lifespan=collector.lifespan, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/events", collector.receive, methods=["POST"])
    app.add_api_route("/", collector.receive, methods=["POST"])  # where eventing systems and KServe's logger send
    app.add_api_route("/healthz", collector.healthz)
    app.add_api_route("/readyz", collector.readyz)
    app.add_api_route("/metrics", collector.export)
    return app


class Collector:
    """The endpoints and what they share; the arguments are those of `create_app`."""

    def __init__(
        self, store: Store, config: MonitoringConfig, secret: bytes, token: str | None, pusher: Pusher | None
    ) -> None:
        self._store, self._config, self._token, self._pusher = store, config, token, pusher
        self._metrics, self._intake = Metrics(), Intake(config, secret)
        self._commit = GroupCommit(
            store, commit_events=config.commit_events, queue_events=config.queue_events, written=self._written
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Starts the writing threads and ends them in order."""
        self._commit.start()
        if self._pusher is not None:
            self._pusher.start()
        yield
        await self._commit.stop()
        if self._pusher is not None:
            self._pusher.stop()
        self._store.close()

    async def receive(self, request: Request) -> Response:
        """Answers 200 once every event of the request is on disk."""
        try:
            self._authorise(request)
            body = await _bounded_body(request, self._config.body_bytes)
            events = self._intake.read(request.headers, body, datetime.now(UTC))
            await self._commit.put(events)
        except Refused as refused:
            self._metrics.refused.labels(str(refused.status)).inc()
            return JSONResponse({"detail": refused.problems}, refused.status)
        except Busy as busy:
            self._metrics.refused.labels("503").inc()
            return JSONResponse({"detail": [{"problem": str(busy)}]}, 503, {"Retry-After": "1"})
        return JSONResponse({"durable": len(events)})

    async def healthz(self) -> Response:
        """Answers while the event loop runs."""
        return JSONResponse({"status": "alive"})

    def readyz(self) -> Response:
        """Answers 200 while the store can be read."""
        try:
            self._store.progress_of("ready")
        except Exception as error:  # the drivers' errors differ
            return JSONResponse({"status": f"store: {type(error).__name__}"}, 503)
        return JSONResponse({"status": "ready"})

    def export(self) -> Response:
        """Metrics as Prometheus reads them."""
        self._metrics.waiting.set(self._commit.waiting_events)
        if self._pusher is not None:
            self._metrics.lag.set(self._pusher.lag())
            self._metrics.pushed.set(self._pusher.pushed)
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _authorise(self, request: Request) -> None:
        if self._token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                raise Refused(401, [{"field": "authorization", "problem": "expected the collector's bearer token"}])

    def _written(self, done: Written, events: Sequence[Stored], seconds: float) -> None:
        self._metrics.written(done, events, seconds)
        if self._pusher is not None and any(isinstance(event, FeedbackEvent) for event in events):
            self._pusher.wake()


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
