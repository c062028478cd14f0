"""A Kubeflow Pipelines API on loopback: the routes that kfp's client calls, what they keep, and how they refuse."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

Answer = tuple[int, Any]


class KfpApi:
    """The server's state.

    Attributes:
        token: what callers must bring, if anything.
        namespaces: profiles whose runs may be started; None: Kubeflow serves one user.
        ends: how every run ends: its state and its steps' states and errors; told after `looks` looks.
    """

    def __init__(self, token: str | None = None, namespaces: tuple[str, ...] | None = None) -> None:
        self.token, self.namespaces = token, namespaces
        self.experiments: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.uploads: list[dict[str, Any]] = []
        self.ends: tuple[str, dict[str, tuple[str, str]]] = ("SUCCEEDED", {})
        self.looks = 1
        self.failures = 1  # how often each run has failed so far
        self.age = timedelta()  # of runs that are made
        self.seen: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        """What a request gets."""
        self.seen.append(f"{method} {path}")
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": "not logged in", "code": 16}
        for pattern, handler in self._routes(method):
            if match := re.fullmatch(pattern, path):
                return handler(match, query, headers, body)
        return 404, {"error": f"no route {method} {path}", "code": 5}

    def _routes(self, method: str) -> list[tuple[str, Callable[..., Answer]]]:
        v2 = "/apis/v2beta1"
        return {
            "GET": [
                (f"{v2}/healthz", lambda *_: (200, {"multi_user": self.namespaces is not None})),
                (f"{v2}/experiments", self._find(self.experiments, "experiments")),
                (f"{v2}/pipelines", self._find(self.pipelines, "pipelines")),
                (f"{v2}/pipelines/(?P<id>[^/]+)/versions", self._list_versions),
                (f"{v2}/runs", self._list_runs),
                (f"{v2}/runs/(?P<id>[^/]+)", self._get_run),
            ],
            "POST": [
                (f"{v2}/experiments", self._create(self.experiments, "experiment")),
                (f"{v2}/pipelines/upload", self._upload),
                (f"{v2}/pipelines/upload_version", self._upload_version),
                (f"{v2}/runs", self._create(self.runs, "run")),
                (f"{v2}/runs/(?P<id>[^/]+):retry", self._retry),
                (f"{v2}/recurringruns", self._create(self.recurring, "recurring_run")),
            ],
        }[method]

    def _find(self, kept: dict[str, dict[str, Any]], name: str) -> Callable[..., Answer]:
        def find(_match: Any, query: dict[str, str], _headers: Any, _body: bytes) -> Answer:
            if refused := self._refuse(query.get("namespace")):
                return refused
            wanted = json.loads(query.get("filter", "{}")).get("predicates", [])
            wanted = {(one["key"], one.get("stringValue", one.get("string_value"))) for one in wanted}
            # The server filters by the stored name, which is the display name.
            home = query.get("namespace") or None
            mine = [one for one in kept.values() if (one.get("namespace") or None) == home]
            found = [one for one in mine if all(one["display_name"] == value for _, value in wanted)]
            return 200, {name: found, "total_size": len(found)} if found else {}

        return find

    def _create(self, kept: dict[str, dict[str, Any]], kind: str) -> Callable[..., Answer]:
        def create(_match: Any, _query: dict[str, str], _headers: Any, body: bytes) -> Answer:
            given = json.loads(body)
            # Runs are made in their experiment's namespace.
            home = self.experiments.get(given.get("experiment_id", ""), given)
            if refused := self._refuse(home.get("namespace")):
                return refused
            reference = given.get("pipeline_version_reference")
            if reference and reference["pipeline_version_id"] not in self.versions:
                return 404, {"error": "no such version", "code": 5}
            identity = f"{kind}-{len(kept) + 1}"
            kept[identity] = {**given, f"{kind}_id": identity}
            if kind == "run":
                kept[identity]["created_at"] = (datetime.now(UTC) - self.age).isoformat()
            return 200, kept[identity]

        return create

    def _refuse(self, namespace: str | None) -> Answer | None:
        if self.namespaces is not None and namespace not in self.namespaces:
            return 403, {"error": f"user is not authorised in {namespace!r}", "code": 7}
        return None

    def _upload(self, _match: Any, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        if refused := self._refuse(query.get("namespace")):
            return refused
        identity = f"pipeline-{len(self.pipelines) + 1}"
        named = {"display_name": unquote(query["name"]), "namespace": query.get("namespace")}
        self.pipelines[identity] = {"pipeline_id": identity, **named}
        self._add_version(identity, query["name"], headers, body)
        return 200, self.pipelines[identity]

    def _upload_version(self, _match: Any, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        return 200, self._add_version(query["pipelineid"], query["name"], headers, body)

    def _add_version(self, pipeline: str, name: str, headers: Any, body: bytes) -> dict[str, Any]:
        message = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        part = next(one for one in message.walk() if one.get_filename())
        documents = list(yaml.load_all(part.get_payload(decode=True), Loader=yaml.CSafeLoader))  # type: ignore[arg-type]
        self.uploads.append(documents[0])
        identity = f"version-{len(self.versions) + 1}"
        version = {"pipeline_id": pipeline, "pipeline_version_id": identity, "display_name": name}
        self.versions[identity] = version
        return version

    def _list_versions(self, match: Any, query: dict[str, str], *_: Any) -> Answer:
        # One a page, so that whoever reads only the first does not find the others.
        mine = [one for one in self.versions.values() if one["pipeline_id"] == match["id"]]
        at = int(query.get("page_token") or 0)
        more = {"next_page_token": str(at + 1)} if at + 1 < len(mine) else {}
        return 200, {"pipeline_versions": mine[at : at + 1], "total_size": len(mine), **more}

    def _get_run(self, match: Any, *_: Any) -> Answer:
        run = self.runs[match["id"]]
        if self.looks > 0:
            self.looks -= 1
            return 200, {**run, "state": "RUNNING"}
        state, steps = self.ends
        tasks = [
            {"display_name": name, "state": status, **({"error": {"code": 1, "message": why}} if why else {})}
            for name, (status, why) in {"root": (state, ""), "root-driver": ("SUCCEEDED", ""), **steps}.items()
        ]
        history = [{"state": one} for one in ["RUNNING", state] * self.failures]
        return 200, {**run, "state": state, "state_history": history, "run_details": {"task_details": tasks}}

    def _list_runs(self, _match: Any, query: dict[str, str], *_: Any) -> Answer:
        """One a page, the newest first."""
        mine = [one for one in self.runs.values() if one["experiment_id"] == query["experiment_id"]][::-1]
        at = int(query.get("page_token") or 0)
        more = {"next_page_token": str(at + 1)} if at + 1 < len(mine) else {}
        return 200, {"runs": [{**one, "state": self.ends[0]} for one in mine[at : at + 1]], **more}

    def _retry(self, match: Any, *_: Any) -> Answer:
        """As `RetryRun` does it: only what failed may go on (kubeflow/pipelines, backend/src/apiserver/resource/
        resource_manager.go)."""
        if self.ends[0] != "FAILED":
            return 400, {"error": "workflow cannot be retried", "code": 3}
        return 200, {}


@contextmanager
def serving(answer: Callable[[str, str, dict[str, str], Any, bytes], Answer]) -> Iterator[str]:
    """An HTTP server on a free port of loopback that answers by a function; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            split = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answer(self.command, split.path, query, self.headers, body)
            page = isinstance(content, str)
            raw = content.encode() if page else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if page else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
