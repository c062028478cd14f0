"""A real Prometheus scrapes the real collector and exporter; every query of their dashboards returns series."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from monitoring.collector.app import create_app
from monitoring.dashboards.boards import BOARDS
from monitoring.exporter import Exporter, metric_of
from monitoring.store import Store, micros
from newfound import release
from newfound.config import MonitoringConfig
from newfound.events import BATCH
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
MEASURES = [
    "slates", "novelty_ratio", "novel_positive_rate", "familiar_positive_rate", "suppression_ratio",
    "suppression_exposure", "suppression_appeal", "exposure_entropy", "exposure_gini", "uci@1", "uci@3", "ueuc",
    "retained_interest", "reason_share.table", "match_rate", "leak", "drift.score", "offpolicy.uniform.snips",
    "bound.novelty_ratio", "bound.novel_positive_rate", "passed.novelty_ratio",
]  # fmt: skip


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
def test_every_query_returns_series(store: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    _keep(store, now - timedelta(days=1), now, 0.5)
    from monitoring.store import decisions

    with store.engine.begin() as connection:
        row: dict[str, Any] = {"at": micros(now), "action": "refresh", "reason": "r", "submitted": False, "run": None}
        connection.execute(decisions.insert(), [row])
    part = tmp_path / "part.json"
    part.write_text("{}")
    release.publish({"part.json": part}, str(tmp_path / "releases"), lineage={}, measures={}, fits={}, gates={})

    registry = CollectorRegistry()
    registry.register(Exporter(store, str(tmp_path / "releases")))
    exporter_port, collector_port, prometheus_port = (parts.free_port() for _ in range(3))
    exporter, _ = start_http_server(exporter_port, "127.0.0.1", registry)
    memory = type("Nothing", (), {"write": lambda *_: None})()
    from monitoring.histories import Pusher

    pusher = Pusher(store, MonitoringConfig(), memory, length=10)
    app = create_app(store, MonitoringConfig(), SECRET, pusher=pusher)
    collector = uvicorn.Server(uvicorn.Config(app, port=collector_port, log_level="error"))
    thread = threading.Thread(target=collector.run)
    thread.start()
    (tmp_path / "prometheus.yaml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{parts.ROOT}/monitoring/rules/newfound.yaml]\n"
        "scrape_configs:\n"
        f"  - {{job_name: exporter, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}\n"
        f"  - {{job_name: collector, static_configs: [{{targets: ['127.0.0.1:{collector_port}']}}]}}\n"
    )
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yaml",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        ],
        stdout=sys.stderr,
        stderr=(tmp_path / "prometheus.log").open("wb"),
    )
    address = f"http://127.0.0.1:{prometheus_port}/api/v1"
    client = httpx.Client()

    def series(expression: str) -> int:
        answer = client.get(f"{address}/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        return len(answer["data"]["result"])

    def send() -> bool:
        events = [parts.recommendation(n) for n in range(5)] + [parts.feedback(n) for n in range(20)]
        url = f"http://127.0.0.1:{collector_port}/v1/events"
        return client.post(url, json=parts.batch(events), headers={"content-type": BATCH}).status_code == 200

    try:
        parts.wait_until(send, 20, "collector")
        parts.wait_until(lambda: client.get(f"{address}/status/runtimeinfo").status_code == 200, 30, "prometheus")
        for name in ("novelty", "collector"):
            for panel in BOARDS[name].panels:
                for query in panel.queries:
                    expression = query.expr.replace("$release", "all").replace("$window", "1d").replace("[5m]", "[30s]")
                    parts.wait_until(lambda e=expression: send() and series(e) > 0, 30, expression)
        for panel in BOARDS["serving"].panels:  # what the explorer exports is scraped in the serving tests
            for query in panel.queries:
                series(query.expr)
        rules = client.get(f"{address}/rules").json()["data"]["groups"][0]["rules"]
        assert rules and all(rule["health"] in ("ok", "unknown") for rule in rules), rules
    finally:
        process.terminate()
        process.wait()
        collector.should_exit = True
        thread.join()
        exporter.shutdown()
