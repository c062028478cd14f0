"""Several days of simulated clients against the real services, in minutes.

Explorer, ranker and collector run as their own processes, with Feast between them. The clients ask the explorer for
slates, react to them by their known tastes, wander on other paths, and send feedback to the collector. Time is
compressed on the way: the explorer sends what it showed through a relay, which moves each event from the moment of
this machine to the moment that the rehearsal says it is. Nothing inside the services knows of it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx

from monitoring.settings import STORE, USER_KEY
from newfound.clusters import Clusters
from newfound.events import BATCH, FeedbackEvent, envelope
from newfound.simulation import Population, Shown

log: Final = logging.getLogger("newfound.monitoring.rehearsal")
ROOT: Final = Path(__file__).parents[2]
VIEWS: Final = ("user_history", "user_interests")
_LATEST: Final = 78_000  # second of the day of the last request: its feedback lies in the same day


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
        "NEWFOUND_FEATURES": str(features.absolute()),
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    repo = str(ROOT / "feature_repo")
    root = str(releases.absolute())
    relay = Relay(f"http://127.0.0.1:{ports['collector']}/v1/events")
    host = ["--host", "127.0.0.1", "--model_name", "newfound"]
    commands = {
        "ranker": ["serving.ranker", "--releases", root, "--http_port", str(ports["ranker"]), *host],
        "explorer": [
            "serving.explorer", "--releases", root, "--http_port", str(ports["explorer"]), *host,
            "--predictor_host", f"127.0.0.1:{ports['ranker']}", "--feast", repo, "--collector", relay.url,
            "--spool", str(out / "spool"), "--history_length", str(history_length),
        ],
        "collector": [
            "monitoring.collector", "--port", str(ports["collector"]), "--features", repo, "--releases", root,
            "--history-length", str(history_length),
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


@dataclass(frozen=True)
class Day:
    """One day of traffic.

    Attributes:
        start: its first moment.
        slates: asked for.
        feedback: events sent.
    """

    start: datetime
    slates: int
    feedback: int


def live_a_day(
    up: Services,
    people: Population,
    users: Sequence[str],
    items: Mapping[str, Sequence[str]],
    start: datetime,
    *,
    slates: int = 2,
    wander: int = 4,
    k: int = 10,
    seed: int = 0,
) -> Day:
    """Lets clients live a day.

    Args:
        up: the services.
        people: the population, whose tastes decide.
        users: who is active.
        items: items by cluster, for what is consumed on other paths.
        start: the day's first moment, in simulated time.
        slates: a user asks for so many.
        wander: a user consumes from so many clusters on other paths.
        k: slots of a slate.
        seed: of the moments within the day.
    """
    rng = random.Random(f"{seed} {start}")
    moments = sorted((start + timedelta(seconds=rng.randrange(_LATEST)), user) for user in users for _ in range(slates))
    sent: list[dict[str, Any]] = []
    total = 0
    for at, user in moments:
        answer = up.client.post(
            f"{up.explorer}/v1/models/newfound:predict",
            json={"instances": [{"user_id": user, "k": k, "seed": rng.randrange(2**32)}]},
        )
        if answer.status_code != 200:
            log.error("the explorer answered %d: %s", answer.status_code, answer.text[:200])
            continue
        slate = answer.json()["predictions"][0]
        up.relay.moments[slate["id"]] = at
        shown = [Shown(place, slot["item"], slot["cluster"]) for place, slot in enumerate(slate["items"])]
        # The seed and the day name the response: ids differ from run to run, and so would everything else.
        for number, did in enumerate(people.respond(user, f"{start} {at}", shown)):
            event = FeedbackEvent(
                id=f"{slate['id']}-{number}",
                at=at + timedelta(seconds=did.delay),
                recommendation_id=slate["id"],
                user_id=user,
                item=did.item,
                kind=did.kind,  # type: ignore[arg-type]
                share=did.share,
            )
            sent.append(envelope(event, "/newfound/rehearsal"))
        if len(sent) > 200:
            total += _send(up, sent)
    for user in users:
        for number, cluster in enumerate(people.wander(user, str(start), wander)):
            at = start + timedelta(seconds=rng.randrange(_LATEST))
            if items.get(cluster):
                event = FeedbackEvent(
                    id=f"{user}-{start:%Y%m%d}-{number}",
                    at=at,
                    user_id=user,
                    item=rng.choice(items[cluster]),
                    kind="liked",
                )
                sent.append(envelope(event, "/newfound/rehearsal"))
    total += _send(up, sent)
    _settled(up)
    return Day(start, len(moments), total)


def items_by_cluster(clusters: Clusters) -> dict[str, list[str]]:
    """The items of every interface cluster."""
    return {node: list(clusters.items_under(node)) for node in clusters.interface}


def successors_of(table: Path, top: int = 5) -> dict[str, list[str]]:
    """What a release's table says follows each interest, most answered first: latent interests are drawn from it."""
    import pyarrow.parquet as pq

    rows = pq.read_table(table / "table.parquet", columns=["context", "rank", "cluster"])
    counts: dict[str, dict[str, int]] = {}
    for context, rank, cluster in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
        if rank < top and context:
            here = counts.setdefault(context[-1], {})
            here[cluster] = here.get(cluster, 0) + top - rank
    return {last: sorted(found, key=lambda c: (-found[c], c)) for last, found in sorted(counts.items())}


def copy_features(source: Path, target: Path) -> Path:
    """A copy of a run's feature store, so that rehearsed feedback does not reach the real one.

    Feast's registry names the folder of its files, so the copy is applied and materialised anew.
    """
    shutil.copytree(source, target)
    (target / "registry.db").unlink(missing_ok=True)
    (target / "online.db").unlink(missing_ok=True)
    environment = {**os.environ, "NEWFOUND_FEATURES": str(target.absolute())}
    feast = [str(Path(sys.executable).with_name("feast")), "--chdir", str(ROOT / "feature_repo")]
    views = [option for view in VIEWS if (target / f"{view}.parquet").is_file() for option in ("--views", view)]
    for command in (["apply"], ["materialize", "1970-01-01T00:00:00", "2200-01-01T00:00:00", *views]):
        done = subprocess.run([*feast, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"feast {command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return target


def _send(up: Services, sent: list[dict[str, Any]]) -> int:
    count = len(sent)
    for first in range(0, count, 500):
        answer = up.client.post(
            f"{up.collector}/v1/events", json=sent[first : first + 500], headers={"content-type": BATCH}
        )
        answer.raise_for_status()
    sent.clear()
    return count


def _settled(up: Services) -> None:
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
