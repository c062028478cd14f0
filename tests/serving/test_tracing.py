"""Traces: off by default, within the sender's trace, silent about users; the whole way is in local/test_stack.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.tracing import ENDPOINT, Tracing, start_tracing

SENDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def traced() -> tuple[Tracing, InMemorySpanExporter]:
    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return Tracing(provider), kept


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def test_off_where_the_endpoint_is_not_set_and_nothing_is_imported():
    code = "import sys; from serving.tracing import start_tracing; assert start_tracing('x', {}) is None; "
    code += f"assert start_tracing('x', {{{ENDPOINT!r}: ''}}) is None; "
    code += "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert start_tracing("x", {}) is None


def test_predictions_are_spans_of_the_senders_trace_and_other_paths_are_none(traced):
    tracing, kept = traced

    async def ask() -> None:
        transport = httpx.ASGITransport(app=tracing.asgi(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for path in ("/metrics", "/page/history/u3", "/v2/models/newfound/ready", "/health"):
                await client.get(path)
            for path in ("/v1/models/m:predict", "/v2/models/m/infer", "/v1/completions"):
                await client.post(path, content=b"{}", headers={"traceparent": SENDER})

    asyncio.run(ask())
    spans = kept.get_finished_spans()
    assert [span.name for span in spans] == [
        "POST /v1/models/m:predict",
        "POST /v2/models/m/infer",
        "POST /v1/completions",
    ]
    assert {f"{span.context.trace_id:032x}" for span in spans} == {SENDER.split("-")[1]}


def test_each_stage_is_a_span_and_an_error_is_named_by_its_type_alone(traced):
    tracing, kept = traced

    async def fine(value: int) -> int:
        return value + 1

    async def broken(value: int) -> int:
        raise ValueError("what a client sent")

    model: Any = SimpleNamespace(preprocess=fine, predict=broken, postprocess=fine)
    tracing.stages(model)
    assert asyncio.run(model.preprocess(1)) == 2
    with pytest.raises(ValueError, match="what a client sent"):
        asyncio.run(model.predict(1))
    good, bad = kept.get_finished_spans()
    assert (good.name, bad.name) == ("preprocess", "predict")
    assert dict(bad.attributes or {}) == {"error.type": "ValueError"}
    assert not bad.events and "client" not in bad.to_json()
