"""A real Prometheus scrapes the real services; every query of every dashboard returns series."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from monitoring.dashboards.boards import BOARDS
from monitoring.exporter import Exporter, metric_of
from monitoring.retraining.decide import Decision, remember
from monitoring.store.database import Store
from monitoring.store.rows import micros, moment
from monitoring.store.tables import recommendations
from newfound.events import FeedbackEvent, SlotEvent
from newfound.release import store as release
from serving.local.processes import Service
from tests.monitoring import servers as parts
from tests.monitoring.stack import Live, live
from tests.release.gates import HELD
from tests.serving.synthetic import World, write_planner

SECRET = parts.SECRET.encode()
MEASURES = ["novelty_ratio", "uci@3", "reason_share.table"]


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, SECRET)
    yield store
    store.close()


def _keep(store: Store, start: datetime, stop: datetime, value: float | None) -> None:
    rows = [
        {"start": micros(start), "stop": micros(stop), "release": of, "name": name, "value": value}
        for name in MEASURES
        for of in ("all", "one")
    ]
    store.put_measures(start, stop, rows)


def _text(store: Store, root: str | None = None) -> str:
    registry = CollectorRegistry()
    registry.register(Exporter(store, root))
    return generate_latest(registry).decode()


def test_the_newest_window_of_each_length(store: Store) -> None:
    assert _text(store) == ""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for stop, value in ((noon, 0.1), (noon + timedelta(days=1), 0.2)):
        _keep(store, stop - timedelta(days=1), stop, value)
        _keep(store, stop - timedelta(hours=1), stop, value + 1)
    _keep(store, noon, noon + timedelta(hours=2), None)
    text = _text(store)
    assert 'newfound_window_novelty_ratio{release="all",window="1d"} 0.2' in text
    assert 'newfound_window_novelty_ratio{release="one",window="1h"} 1.2' in text
    assert 'newfound_window_uci{n="3",release="all",window="1d"} 0.2' in text
    assert 'window="2h"} 0' not in text, "what was not measured is absent, not zero"
    assert (
        f'newfound_window_stop_timestamp_seconds{{window="1d"}} {(noon + timedelta(days=1)).timestamp():.10e}'[:60]
        in text
    )
    assert metric_of("reason_share.table") == ("newfound_window_reason_share", {"reason": "table"})


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (apt-get install prometheus)"
)
def test_every_query_returns_series(tmp_path: Path) -> None:
    """Explorer, ranker, planner, Feast, collector, a report and its exporter, none of them made up."""
    planner_port, exporter_port, prometheus_port = (parts.free_port() for _ in range(3))
    with ExitStack() as stack, live(tmp_path, world=World(holes=400), planner=planner_port) as up:
        _publish_with_planner(tmp_path, up.stack.root)
        releases = ["--releases", str(up.stack.root)]
        arguments = [*releases, "--host", "127.0.0.1", "--http_port", str(planner_port)]
        health = f"http://127.0.0.1:{planner_port}/health"
        planner = Service.module("planner", "serving.planner", arguments, tmp_path, health).start()
        stack.callback(planner.stop)
        planner.wait()
        wanted = release.current(str(up.stack.root)) or ""
        parts.wait_until(lambda: up.stack.metric("newfound_release_info", release=wanted) == 1, 60, "the release")
        _live_a_week(up)
        told = {"NEWFOUND_STORE": up.collector.store, "NEWFOUND_USER_KEY": parts.SECRET, "DO_NOT_TRACK": "1"}
        until = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        reporting = ["report", "--window", "1d", "--reference", "7d", "--until", until, "--out", str(tmp_path / "out")]
        subprocess.run(
            [sys.executable, "-m", "monitoring", *reporting, *releases],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **told},
        )
        remember(up.store, Decision("refresh", "because"), datetime.now(UTC), submitted=False)  # a dry run's
        exporter = Service.module(
            "exporter",
            "monitoring",
            ["exporter", "--port", str(exporter_port), *releases],
            tmp_path,
            f"http://127.0.0.1:{exporter_port}/metrics",
            told,
        ).start()
        stack.callback(exporter.stop)
        exporter.wait()
        scraped = {
            "explorer": up.stack.url.removeprefix("http://"),
            "ranker": up.stack.ranker_url.removeprefix("http://"),
            "collector": up.collector.url.removeprefix("http://"),
            "exporter": f"127.0.0.1:{exporter_port}",
        }
        prometheus = _prometheus(tmp_path, prometheus_port, scraped)
        stack.callback(prometheus.stop)
        prometheus.wait()
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{prometheus_port}/api/v1", timeout=30))

        def series(expression: str) -> int:
            answer = client.get("query", params={"query": expression}).json()
            assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
            return len(answer["data"]["result"])

        def traffic() -> bool:
            return up.ask("u3")["items"] and up.send(parts.feedback(f"traffic-{time.time_ns()}", user_id="u3")) is None

        for board in BOARDS.values():
            for panel in board.panels:
                for query in panel.queries:
                    expression = query.expr.replace("$release", "all").replace("$window", "1d").replace("[5m]", "[30s]")
                    parts.wait_until(lambda e=expression: traffic() and series(e) > 0, 60, expression)
        assert series("up == 1") == len(scraped)
        rules = client.get("rules").json()["data"]["groups"][0]["rules"]
        assert rules and all(rule["health"] in ("ok", "unknown") for rule in rules), rules


def _publish_with_planner(folder: Path, root: Path) -> None:
    """A second release: the first one's parts, and a small random planner for what the table leaves out."""
    made = folder / "parts"
    write_planner(made)
    names = {name: made / name for name in ("clusters", "table", "ranker", "items.parquet", "planner")}
    release.publish(names, str(root), lineage={"config": {}}, measures={}, fits={}, gates=HELD)


def _live_a_week(up: Live) -> None:
    """Everybody asks, and answers; the same once more as if it had been two days ago, to hold today against."""
    sent: list[Any] = []
    for number, row in enumerate(up.stack.rows):
        user = row["user_id"]
        # Without a seed: a slate whose seed the client chose is left out of off-policy estimates.
        slate = up.stack.slate(user_id=user, k=20, novel=10)
        for place, slot in enumerate(slate["items"]):
            kind = ("liked", "shown", "clicked", "dismissed")[(number + place) % 4]
            about = {"user_id": user, "item": slot["item"], "recommendation_id": slate["id"], "kind": kind}
            sent.append(parts.feedback(f"{slate['id']}-{place}", at=datetime.now(UTC), **about))
    parts.wait_until(lambda: up.store.counts()["recommendations"] >= len(up.stack.rows), 30, "what was shown")
    with up.store.engine.connect() as connection:
        rows = connection.execute(recommendations.select()).all()
    for row in rows:
        slots = tuple(SlotEvent.model_validate(slot) for slot in json.loads(row.slots))
        shown = parts.recommendation(f"before-{row.id}", at=moment(row.at) - timedelta(days=2), user_id=row.user_id,
                                     slots=slots, history_length=row.history_length, release=row.release,
                                     history_at=moment(row.history_at) - timedelta(days=2))  # fmt: skip
        sent.append(shown)
    for one in [event for event in sent if isinstance(event, FeedbackEvent)]:
        earlier = {"id": f"before-{one.id}", "at": one.at - timedelta(days=2)}
        sent.append(one.model_copy(update={**earlier, "recommendation_id": f"rbefore-{one.recommendation_id}"}))
    for first in range(0, len(sent), 500):
        up.send(*sent[first : first + 500])


def _prometheus(folder: Path, port: int, scraped: dict[str, str]) -> Service:
    jobs = [{"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in scraped.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(parts.ROOT / "monitoring/rules/newfound.yaml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    return Service("prometheus", command, folder, f"http://127.0.0.1:{port}/-/ready").start()
