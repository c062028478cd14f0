"""The collector's HTTP side: `POST /v1/events` (or `/`), health, metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitoring.collector.commit import Busy, GroupCommit
from monitoring.collector.intake import Intake, Refused
from monitoring.collector.metrics import Metrics
from monitoring.settings import MonitoringConfig
from monitoring.store.batches import Batch, Written
from monitoring.store.database import Store

if TYPE_CHECKING:  # it brings pyarrow along, which a collector without Feast can start without
    from monitoring.collector.pusher import Pusher


def create_app(
    store: Store,
    config: MonitoringConfig,
    secret: bytes,
    *,
    token: str | None = None,
    pusher: Pusher | None = None,
    metrics: Metrics | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """The collector over an open store.

    Args:
        store: where events go.
        config: bounds.
        secret: key of the users' hashes, shared with the explorer.
        token: senders must present it as a bearer token; None leaves that to the gateway.
        pusher: keeps Feast's histories fresh; None leaves them alone.
        metrics: where the server counts as well; None makes new ones.
        clock: UTC.
    """
    collector = Collector(store, config, secret, token, pusher, metrics or Metrics(), clock)
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
        self,
        store: Store,
        config: MonitoringConfig,
        secret: bytes,
        token: str | None,
        pusher: Pusher | None,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._config, self._token, self._pusher, self._clock = store, config, token, pusher, clock
        self._metrics, self._intake = metrics, Intake(config, secret)
        self._commit = GroupCommit(
            store,
            commit_events=config.commit_events,
            queue_events=config.queue_events,
            seconds=config.commit_seconds,
            written=self._written,
        )
        self._bodies_bytes = 0

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
        held = _Held()
        try:
            self._authorise(request)
            body = await self._read(request, held)
            batch = self._intake.read(request.headers, body, self._clock())
            del body
            refusal = await self._commit.put(batch)
            if refusal is not None:
                raise Refused(refusal.status, refusal.problems)
        except Refused as refused:
            self._metrics.refuse(refused.status, len(refused.events))
            return JSONResponse(refused.body, refused.status)
        except Busy as busy:
            self._metrics.refuse(503, 0)
            return JSONResponse({"detail": [{"problem": str(busy)}]}, 503, {"Retry-After": "1"})
        finally:
            self._bodies_bytes -= held.bytes
        return JSONResponse({"durable": len(batch.events)})

    async def _read(self, request: Request, held: _Held) -> bytes:
        """The body, given up as soon as it is too large, whatever its length header says, or too slow."""
        parts = []
        try:
            async with asyncio.timeout(self._config.body_seconds):
                async for part in request.stream():
                    held.bytes += len(part)
                    self._bodies_bytes += len(part)
                    if held.bytes > self._config.body_bytes:
                        problem = f"larger than {self._config.body_bytes} bytes"
                        raise Refused(413, [{"field": "(body)", "problem": problem}])
                    if self._bodies_bytes > self._config.bodies_bytes:
                        raise Busy("too many bytes wait already")
                    parts.append(part)
        except TimeoutError:
            problem = f"took longer than {self._config.body_seconds} s"
            raise Refused(408, [{"field": "(body)", "problem": problem}]) from None
        return b"".join(parts)

    async def healthz(self) -> Response:
        """Answers while the event loop runs."""
        return JSONResponse({"status": "alive"})

    def readyz(self) -> Response:
        """Answers 200 while events can be written: commits go through, or a probe does where there are none."""
        try:
            if self._commit.stalled() > self._config.stalled_seconds:
                raise TimeoutError
            if time.monotonic() - self._commit.last_commit > self._config.stalled_seconds:
                self._store.probe()
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

    def _written(self, done: Written, batches: Sequence[Batch], seconds: float) -> None:
        self._metrics.written(done, batches, seconds)
        if self._pusher is not None and "feedback" in done.new:
            self._pusher.wake()


@dataclass
class _Held:
    """Bytes of one request's body, which count until it is answered."""

    bytes: int = 0
