"""OpenTelemetry traces of the services, off where `OTEL_EXPORTER_OTLP_ENDPOINT` is not set.

With it, explorer, ranker and planner send spans of predictions there, by OTLP over HTTP. The other variables of
OpenTelemetry's own apply as well: `OTEL_TRACES_SAMPLER` says how many requests are traced. Spans hold paths, statuses
and times; neither bodies nor keys of a store, which would name users.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kserve import Model
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
STAGES: Final = ("preprocess", "predict", "postprocess")
# Probes, metrics and the page, whose paths name users.
_UNTRACED: Final = r"^(?!.*(:predict|/infer|/completions)$)"


class Tracing:
    """One process's traces.

    Args:
        provider: what makes and exports its spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("newfound")

    def asgi(self, app: Any) -> Any:
        """The application with a span for each prediction, within its sender's trace."""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.util.http import ExcludeList

        return OpenTelemetryMiddleware(
            app,
            excluded_urls=ExcludeList([_UNTRACED]),
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],
        )

    def grpc(self) -> Any:
        """A gRPC interceptor that does the same."""
        from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters

        return aio_server_interceptor(self._provider, filters.method_name("ModelInfer"))

    def stages(self, model: Model) -> None:
        """Gives each stage of a model a span of its own."""
        for stage in STAGES:
            setattr(model, stage, self._in_span(stage, getattr(model, stage)))

    def _in_span(self, name: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(work)
        async def traced(*arguments: Any, **more: Any) -> Any:
            # An exception may quote what a client sent: the span has its type alone.
            with self._tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    return await work(*arguments, **more)
                except Exception as error:
                    span.set_attribute("error.type", type(error).__name__)
                    raise

        return traced


def start_tracing(service: str, environment: Mapping[str, str]) -> Tracing | None:
    """Starts the traces of this process, outgoing calls of aiohttp and Redis included; None where they are off.

    Args:
        service: the process's name in its spans.
        environment: the process's.
    """
    if not environment.get(ENDPOINT):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Not the process's global one: FastAPI would trace every path by itself, those that name users as well.
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # it reads the endpoint itself
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    RedisInstrumentor().instrument(tracer_provider=provider)
    return Tracing(provider)
