"""A refresh that is submitted: what Kubeflow Pipelines is asked for, by the real client over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from newfound import release
from newfound.config import RefreshConfig
from newfound.errors import ConfigError
from pipelines.refresh import app, latest_shares

Asked = list[tuple[str, str, Any]]


@pytest.fixture
def kubeflow() -> Iterator[tuple[str, Asked]]:
    """Answers what the client asks on its way to a run, and keeps it."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.split("?")[0]
            asked.append((self.command, path, body))
            found: dict[str, Any] = {}
            if path.endswith("/experiments"):
                found = {"experiment_id": "e1", "display_name": "newfound"} if self.command == "POST" else {}
            elif path.endswith("/runs"):
                found = {"run_id": "run-1"}
            text = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815, the names are http.server's

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def interactions(tmp_path: Path) -> Path:
    """Ten days of one event each."""
    newest = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [("u", f"i{day}", newest - timedelta(days=day), 1.0) for day in range(10)]
    path = tmp_path / "interactions.parquet"
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "engagement"]).to_parquet(path)
    return path


def test_the_run_has_its_reason_and_its_days(kubeflow: tuple[str, Asked], interactions: Path, tmp_path: Path) -> None:
    host, asked = kubeflow
    part = tmp_path / "part.json"
    part.write_text("{}")
    made = release.publish({"part.json": part}, str(tmp_path / "r"), lineage={}, measures={}, fits={}, gates={})
    url = f"file://{interactions}"
    given = ["--host", host, "--releases", str(tmp_path / "r"), "--interactions", url, "--name", "refresh: leak"]
    done = CliRunner().invoke(app, ["submit", "--config", "pipelines/configs/production.yaml", *given])
    assert done.exit_code == 0 and "#/runs/details/run-1" in done.output, done.output
    run = next(body for method, path, body in asked if method == "POST" and path.endswith("/runs"))
    assert run["display_name"] == "refresh: leak" and run["experiment_id"] == "e1"
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "newfound-refresh"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["release"] == made.id and parameters["promote"] is True
    data = json.loads(parameters["data"])["config"]
    assert (data["data"]["interactions"], data["split"]["future"], data["split"]["cut"]) == (url, 0.2, "global")
    assert parameters["recent"] == 1.0


def test_shares_are_of_the_latest_days(interactions: Path) -> None:
    bounds = RefreshConfig(judged_days=3, recent_days=5)
    assert latest_shares(str(interactions), bounds) == latest_shares(f"file://{interactions}", bounds) == (0.3, 0.5)
    with pytest.raises(ConfigError, match=r"absent\.parquet: cannot be read"):
        latest_shares("absent.parquet", bounds)
    with pytest.raises(ConfigError, match="nothing is older"):
        latest_shares(str(interactions), RefreshConfig(judged_days=30))
