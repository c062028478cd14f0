"""End to end, with real processes: tastes drift, a bound breaks, a refresh is due, serving switches, it heals."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.rehearsal.monitor import DAY, rehearse
from monitoring.rehearsal.stack import Services
from monitoring.report.job import WindowReport
from monitoring.retraining.decide import decide, remember
from monitoring.retraining.submit import submit
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.users.interactions import write_interactions
from newfound.release import store as release
from newfound.schema import INTERACTIONS
from tests.monitoring.servers import ROOT, wait_until
from tests.serving.synthetic import World, history_table, publish_world

log = logging.getLogger("newfound.tests")
DRIFT, DAYS, USERS = 3, 7, 150


def _world(folder: Path) -> None:
    """A release that nobody trained, with its dataset and feature store: everybody knows two interests."""
    world = World(clusters=60, items=12)
    publish_world(world, folder / "releases", folder / "parts")
    rng = np.random.default_rng(world.seed)
    rows: list[dict[str, Any]] = []
    for user in range(USERS * DAYS):
        tastes = rng.permutation(world.clusters)[:2]
        items = list(dict.fromkeys(f"i{rng.choice(tastes)}.{rng.integers(world.items)}" for _ in range(12)))
        times = [1_700_000_000_000 + step for step in range(len(items))]
        row = {"user_id": f"u{user}", "event_timestamp": 1_700_000_000_000_000 + user, "item_ids": items}
        likes = {"engagements": [0.9] * len(items), "positives": [True] * len(items)}
        rows.append({**row, "times": times, **likes})
    (folder / "features").mkdir()
    pq.write_table(history_table(rows), folder / "features" / "user_history.parquet")
    events = [
        (row["user_id"], item, at * 1000, engagement, positive, position)
        for row in sorted(rows, key=lambda row: row["user_id"])
        for position, (item, at, engagement, positive) in enumerate(
            zip(row["item_ids"], row["times"], row["engagements"], row["positives"], strict=True)
        )
    ]
    (folder / "dataset").mkdir()
    columns = [pa.array(list(column)) for column in zip(*events, strict=True)]
    table = pa.table(
        [column.cast(field.type) for column, field in zip(columns, INTERACTIONS, strict=True)], INTERACTIONS
    )
    pq.write_table(table, folder / "dataset" / "interactions.parquet")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_drift_is_noticed_and_healed(tmp_path: Path) -> None:
    _world(tmp_path)
    first = release.current(str(tmp_path / "releases"))
    config = MonitoringConfig(max_degraded=1.0)  # a busy machine may not break the loop
    refreshed: list[tuple[datetime, str]] = []

    def each_day(up: Services, store: Store, report: WindowReport) -> None:
        decision = decide(store, DAY, config, report.stop)
        log.info("%s: %s (%s)", report.stop, decision.action, decision.reason)
        if decision.action != "refresh" or refreshed:
            return
        remember(store, decision, report.stop, submitted=True)
        interactions = tmp_path / "interactions.parquet"
        write_interactions(store, config, str(interactions))
        submit(
            decision,
            to="local",
            config=ROOT / "pipelines/configs/local.yaml",
            releases=str(tmp_path / "releases"),
            interactions=str(interactions),
            extra=["--runs", str(tmp_path / "run")],
        )
        now = release.current(str(tmp_path / "releases"))
        assert now is not None and now != first
        wait_until(lambda: up.release() == now, 60, "the explorer takes up the release")
        refreshed.append((report.stop, now))

    logging.getLogger("httpx").setLevel(logging.WARNING)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    found = rehearse(
        tmp_path / "releases",
        tmp_path / "dataset",
        tmp_path / "features",
        tmp_path / "out",
        midnight,
        config,
        days=DAYS,
        drift_after=DRIFT,
        users_a_day=USERS,
        returning=0,
        wander=10,
        each_day=each_day,
    )
    rate = [float(day.measures["novel_positive_rate"] or 0) for day in found]
    log.info("positive rate on novel slots by day: %s", [round(value, 3) for value in rate])
    (tmp_path / "rates").write_text(repr(rate))
    assert not any("novel_positive_rate" in str(check) for day in found[:DRIFT] for check in day.failed)
    assert any("novel_positive_rate" in str(check) for check in found[DRIFT].failed), "the drift breaks its bound"
    assert refreshed, "a refresh was due"
    healed = next(n for n, day in enumerate(found) if day.start >= refreshed[0][0])
    assert healed < DAYS
    before, during, after = rate[:DRIFT], rate[DRIFT:healed], rate[healed:]
    assert max(during) < 0.6 * min(before), "the drift shows"
    assert min(after) > max(during), "the measure recovers with the new table"
    assert sum(after) / len(after) > 1.25 * sum(during) / len(during)
    assert set(found[-1].by_release) == {"all", refreshed[0][1]}, "every slate of the last day is the new release's"
    lineage = release.verify(str(tmp_path / "releases")).lineage
    assert lineage["kind"] == "refresh" and lineage["parents"] == [first]


@pytest.mark.slow
def test_the_refresh_pipeline_says_what_it_misses(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipelines",
            "local",
            "refresh",
            "--releases",
            str(tmp_path),
            "--runs",
            str(tmp_path / "r"),
        ],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "no release to refresh" in done.stderr
