"""The real services under simulated clients: days of traffic in minutes.

Explorer, ranker and collector run as their own processes, with Feast between them. The clients ask the explorer for
slates, react to them by their known tastes, wander on other paths, and send feedback to the collector. Time is
compressed on the way: the explorer sends what it showed through a relay, which moves each event from the moment of
this machine to the moment that the rehearsal says it is. Nothing inside the services knows of it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx

from feature_repo.store import FOLDER_VARIABLE, REPOSITORY
from monitoring.settings import STORE, USER_KEY
from newfound.events import BATCH

log: Final = logging.getLogger("newfound.monitoring.rehearsal")
ROOT: Final = Path(__file__).parents[2]


class Relay:
    """Takes the explorer's events, moves them in time, and passes them on; refuses what it does not know yet."""

    def __init__(self, collector: str) -> None:
        self.collector = collector
        self.moments: dict[str, datetime] = {}
        self._client = httpx.Client(timeout=30)
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802, the name is http.server's
                body = self.rfile.read(int(self.headers["content-length"]))
                status = relay.forward(json.loads(body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/events"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def forward(self, events: list[dict[str, Any]]) -> int:
        """Passes a batch on; 503 while the answer to one of its slates has not arrived here."""
        for _ in range(200):
            if all(event["id"] in self.moments for event in events):
                break
            time.sleep(0.01)
        else:
            return 503
        for event in events:
            at = self.moments[event["id"]].isoformat()
            event["time"] = event["data"]["at"] = at
            if event["data"].get("history_at", "") and event["data"]["history_at"] > at:
                event["data"]["history_at"] = at
        answer = self._client.post(self.collector, json=events, headers={"content-type": BATCH})
        if answer.status_code >= 400:
            log.error("the collector answered %d: %s", answer.status_code, answer.text[:300])
        return answer.status_code

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._client.close()


@dataclass
class Services:
    """The processes, and where they listen."""

    explorer: str
    collector: str
    relay: Relay
    client: httpx.Client
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def release(self) -> str:
        """The release that the explorer serves, as its metrics say."""
        text = self.client.get(f"{self.explorer}/metrics").text
        serving = [
            line for line in text.splitlines() if line.startswith("newfound_release_info{") and line.endswith(" 1.0")
        ]
        return serving[0].split('release="')[1].split('"')[0] if serving else ""


@contextmanager
def services(out: Path, releases: Path, features: Path, secret: str, history_length: int = 1000) -> Iterator[Services]:
    """Starts ranker, explorer and collector, and waits until they answer.

    Args:
        out: folder of the store, logs and spools.
        releases: root of releases with a current one.
        features: Feast's folder, applied and materialised; fresh feedback is written there.
        secret: key of the users' hashes.
        history_length: events of a history row.
    """
    out = out.absolute()
    ports = {name: _free_port() for name in ("ranker", "explorer", "collector")}
    environment = {
        **os.environ,
        STORE: f"sqlite:///{out}/events.db",
        USER_KEY: secret,
        FOLDER_VARIABLE: str(features.absolute()),
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    root = str(releases.absolute())
    relay = Relay(f"http://127.0.0.1:{ports['collector']}/v1/events")
    host = ["--host", "127.0.0.1", "--model_name", "newfound"]
    commands = {
        "ranker": ["serving.ranker", "--releases", root, "--http_port", str(ports["ranker"]), *host],
        "explorer": [
            "serving.explorer", "--releases", root, "--http_port", str(ports["explorer"]), *host,
            "--predictor_host", f"127.0.0.1:{ports['ranker']}", "--feast", str(REPOSITORY), "--collector", relay.url,
            "--spool", str(out / "spool"), "--history_length", str(history_length),
        ],
        "collector": [
            "monitoring.collector", "--port", str(ports["collector"]), "--features", str(REPOSITORY),
            "--releases", root, "--history-length", str(history_length),
        ],
    }  # fmt: skip
    with ExitStack() as stack:
        stack.callback(relay.close)
        client = stack.enter_context(httpx.Client(timeout=30))
        up = Services(f"http://127.0.0.1:{ports['explorer']}", f"http://127.0.0.1:{ports['collector']}", relay, client)
        for name, command in commands.items():
            record = stack.enter_context((out / f"{name}.log").open("ab"))
            up.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=record, stderr=record
            )
            stack.callback(_end, up.processes[name])
        _wait(up, lambda: client.get(f"{up.collector}/readyz").status_code == 200)
        _wait(up, lambda: client.get(f"{up.explorer}/v2/models/newfound/ready").status_code == 200)
        yield up


def copy_features(source: Path, target: Path) -> Path:
    """A copy of a run's feature store, so that rehearsed feedback does not reach the real one.

    Feast's registry names the folder of its files, so the copy is applied and materialised anew; in a process of its
    own, as this one's environment names no feature store.
    """
    shutil.copytree(source, target)
    (target / "registry.db").unlink(missing_ok=True)
    (target / "online.db").unlink(missing_ok=True)
    environment = {**os.environ, FOLDER_VARIABLE: str(target.absolute())}
    code = "from feature_repo.store import apply, materialise, open_store; store = open_store(); "
    command = [sys.executable, "-c", f"{code} apply(store); materialise(store)"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the copied feature store cannot be filled: {done.stderr.strip().splitlines()[-1:]}")
    return target


def wait_until_delivered(up: Services) -> None:
    """Waits until the explorer has sent what it showed and Feast has what came of it."""

    def quiet() -> bool:
        collector = up.client.get(f"{up.collector}/metrics").text
        explorer = up.client.get(f"{up.explorer}/metrics").text
        waiting = [
            line
            for line in explorer.splitlines()
            if line.startswith(("newfound_outbox_events", "newfound_spool_bytes"))
        ]
        lag = [line for line in collector.splitlines() if line.startswith("newfound_collector_history_lag_seconds")]
        return all(line.endswith(" 0.0") for line in waiting + lag)

    _wait(up, quiet)


def _wait(up: Services, check: Callable[[], bool], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, process in up.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"the {name} ended with status {process.returncode}; see its log")
        try:
            if check():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the services were not ready within {seconds:.0f} s; see their logs")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
