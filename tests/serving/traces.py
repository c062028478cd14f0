"""A receiver of OpenTelemetry traces, and the picture of one: ``python -m tests.serving.traces OUT.svg``."""

from __future__ import annotations

import http.server
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import httpx

_SERVICES: Final = {"newfound-explorer": "#4269d0", "newfound-ranker": "#3ca951", "newfound-planner": "#ff725c"}
_ROW, _LEFT, _WIDTH = 22, 300, 560


@dataclass(frozen=True)
class Span:
    """One span; times in nanoseconds."""

    trace: bytes
    id: bytes
    parent: bytes
    service: str
    name: str
    start: int
    end: int
    attributes: dict[str, str]


class Sink:
    """An OTLP endpoint over HTTP that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink._keep(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def environment(self) -> dict[str, str]:
        """What turns the services' traces on; they are sent at once rather than every five seconds."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def __enter__(self) -> Sink:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _keep(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for one in scope.spans:
                    attributes = {pair.key: str(pair.value) for pair in one.attributes}
                    times = (one.start_time_unix_nano, one.end_time_unix_nano)
                    self.spans.append(
                        Span(
                            one.trace_id,
                            one.span_id,
                            one.parent_span_id,
                            told["service.name"],
                            one.name,
                            *times,
                            attributes,
                        )
                    )


def whole(spans: Sequence[Span]) -> list[Span]:
    """The spans of a trace that came through explorer, planner and ranker, in the order of their start; or none."""
    by_trace = defaultdict(list)
    for one in list(spans):
        by_trace[one.trace].append(one)
    for found in reversed(by_trace.values()):
        ids = {one.id for one in found}
        roots = [one for one in found if one.parent not in ids]
        if {one.service for one in found} == set(_SERVICES) and len(roots) == 1:
            return sorted(found, key=lambda one: (one.start, -one.end))
    return []


def picture(spans: Sequence[Span]) -> str:
    """SVG of one trace: a bar a span, from left to right in time, below the span that it belongs to."""
    by_id = {one.id: one for one in spans}
    begin, end = min(one.start for one in spans), max(one.end for one in spans)

    def depth(one: Span) -> int:
        return 1 + depth(by_id[one.parent]) if one.parent in by_id else 0

    rows = []
    for at, one in enumerate(spans):
        x = _LEFT + (one.start - begin) / (end - begin) * _WIDTH
        width = max((one.end - one.start) / (end - begin) * _WIDTH, 1.5)
        y, label = 30 + at * _ROW, escape(f"{one.service.removeprefix('newfound-')}: {one.name}")
        time_x, anchor = (x - 6, "end") if x + width > _LEFT + 0.9 * _WIDTH else (x + width + 6, "start")
        rows.append(
            f'<text x="{8 + 12 * depth(one)}" y="{y + 13}">{label}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" rx="2" fill="{_SERVICES[one.service]}"/>'
            f'<text x="{time_x:.1f}" y="{y + 13}" text-anchor="{anchor}" fill="#555">'
            f"{(one.end - one.start) / 1e6:.1f} ms</text>"
        )
    height = 40 + len(spans) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 80} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="18" font-weight="bold">One request, {(end - begin) / 1e6:.1f} ms</text>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def _recorded(folder: Path, sink: Sink) -> list[Span]:
    """A trace that came through every part, once each was warm."""
    from tests.serving.launcher import launched_serve
    from tests.serving.synthetic import World

    with launched_serve(World(clusters=12, holes=20), folder, sink.environment) as (process, port):
        url = f"http://127.0.0.1:{port}/v1/models/newfound:predict"
        end = time.monotonic() + 600
        while not (found := whole(sink.spans)) or len(sink.spans) < 400:
            assert time.monotonic() < end and process.poll() is None, (folder / "output").read_text()
            try:
                for user in range(5):
                    body = {"instances": [{"user_id": f"u{user}", "deadline_ms": 3000}]}
                    httpx.post(url, json=body, timeout=20)
            except httpx.HTTPError:
                time.sleep(1)
            time.sleep(0.1)
        return found


def main() -> None:
    """Serves a made-up release, asks until a trace came through every part, and draws it."""
    with tempfile.TemporaryDirectory(prefix="newfound-trace-") as folder, Sink() as sink:
        found = _recorded(Path(folder), sink)
    Path(sys.argv[1]).write_text(picture(found), encoding="utf-8")
    print(f"{sys.argv[1]} written: {len(found)} spans")


if __name__ == "__main__":
    main()
