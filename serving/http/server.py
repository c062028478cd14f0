"""KServe's model server on one host address, behind admission, on uvloop."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from kserve import Model, ModelServer
from kserve.model_server import parser as kserve_parser
from kserve.protocol.rest.server import RESTServer

from newfound.errors import ReleaseError
from newfound.release.store import check_id
from newfound.service.connections import bounded_protocol
from serving.gc_freeze import freeze_collected
from serving.http.accept_loop import Loop
from serving.http.admission import AdmissionMiddleware
from serving.http.context import Capacity
from serving.http.errors import HANDLERS, Busy
from serving.http.grpc_server import Servicer, start_grpc
from serving.http.logs import set_up_logs
from serving.http.v1 import Prediction
from serving.metrics import CLOSED
from serving.settings import ServingConfig
from serving.tracing import Tracing


def _release_id(text: str) -> str:
    try:
        return check_id(text)
    except ReleaseError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def arguments(description: str) -> argparse.ArgumentParser:
    """KServe's own arguments and those that both services share."""
    parser = argparse.ArgumentParser(description=description, parents=[kserve_parser])
    parser.add_argument("--releases", required=True, help="Folder or URL of all releases.")
    parser.add_argument(
        "--release", type=_release_id, help="Id of the one release to serve; `current` is followed by default."
    )
    parser.add_argument("--cache", help="Local folder for copies of releases; a temporary one by default.")
    parser.add_argument("--settings", help="YAML of the services' settings.")
    parser.add_argument("--host", default="0.0.0.0", help="Address to listen on.")
    parser.set_defaults(enable_latency_logging=False)
    return parser


def _count_closed(why: str) -> None:
    CLOSED.labels(why).inc()


class _Rest(RESTServer):
    """Without KServe's timing middleware, which works out a name for each request only to write it to a log."""

    def __init__(
        self, host: str, config: ServingConfig, pages: str, tracing: Tracing | None, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._bounds, self._pages, self._tracing = config, pages, tracing
        self.capacity = Capacity(config.in_flight)
        self.config.host = host
        self.config.access_log = False
        self.config.server_header = False
        self.config.proxy_headers = False  # nobody here reads where a request came from
        self.config.http = bounded_protocol(
            config.receive_ms / 1000, config.connections_per_peer, orjson.dumps(Busy().body()), _count_closed
        )

    def end(self) -> None:
        """Ends the server once it has drained, or before it has started."""
        self._server.should_exit = True

    def _add_middlewares(self, application: Any) -> None:
        application.add_middleware(
            AdmissionMiddleware,
            capacity=self.capacity,
            body_bytes=self._bounds.body_bytes,
            receive_s=self._bounds.receive_ms / 1000,
            pages=self._pages,
            predict=Prediction(self.dataplane),
        )
        if self._tracing is not None:
            application.add_middleware(self._tracing.asgi)

    def _add_exception_handlers(self, application: Any) -> None:
        super()._add_exception_handlers(application)
        for kind, handler in HANDLERS.items():
            application.add_exception_handler(kind, handler)


class Server(ModelServer):
    """One model behind REST and, where asked for, gRPC.

    Args:
        options: parsed `arguments`.
        config: bounds.
        pages: pattern of further paths that may be read.
        tracing: traces of predictions; None where they are off.
    """

    def __init__(
        self, options: argparse.Namespace, config: ServingConfig, pages: str = "", tracing: Tracing | None = None
    ) -> None:
        super().__init__(
            http_port=options.http_port,
            grpc_port=options.grpc_port,
            enable_grpc=options.enable_grpc,
            enable_latency_logging=options.enable_latency_logging,
        )
        self.host, self.bounds, self.pages, self.tracing = options.host, config, pages, tracing

    def run(
        self,
        model: Model,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        """Serves until SIGTERM or SIGINT.

        Args:
            model: what is served.
            start: awaited in the event loop before the first request. It must not take long: what does goes on in the
                background, and the model is not healthy until it is done.
            stop: awaited after the last one.
        """
        set_up_logs()
        if self.tracing is not None:
            self.tracing.stages(model)
        self._register_and_check_atleast_one_model_is_ready([model])
        self.dataplane.ready = model.healthy  # KServe's own says that it is, whatever the model says
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(self._run(start, stop))

    async def _run(self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
        rest = _Rest(
            self.host,
            self.bounds,
            self.pages,
            self.tracing,
            "kserve.model_server:app",
            self.dataplane,
            self.model_repository_extension,
            self.http_port,
            grace_period=self.grace_period,
            timeout_keep_alive=self.timeout_keep_alive,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn handles them while it serves, and raises them anew once it has drained.
            signal.signal(number, lambda *_: rest.end())
        freeze_collected()
        await start()
        grpc = None
        if self.enable_grpc:
            servicer = Servicer(self.dataplane, self.model_repository_extension, rest.capacity)
            address, traced = f"{self.host}:{self.grpc_port}", [] if self.tracing is None else [self.tracing.grpc()]
            grpc = await start_grpc(servicer, address, self.bounds.body_bytes, rest.capacity, traced)
        try:
            await rest.start()
        finally:
            if grpc is not None:
                await grpc.stop(grace=5)
            await stop()
