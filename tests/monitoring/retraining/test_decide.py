"""The decision which pipeline is due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.retraining.decide import decide, remember
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from tests.monitoring.servers import SECRET

CONFIG = MonitoringConfig()
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, SECRET.encode())
    yield store
    store.close()


def day(store: Store, number: int, **values: float) -> datetime:
    """Keeps a day's measures; returns its end. `broken="leak"` style values are given as passed_<name>=0."""
    start = START + number * DAY
    names = {name.replace("passed_", "passed."): value for name, value in values.items()}
    rows = [
        {"start": micros(start), "stop": micros(start + DAY), "release": "all", "name": name, "value": value}
        for name, value in names.items()
    ]
    store.put_measures(start, start + DAY, rows)
    return start + DAY


def test_one_bad_day_is_no_reason(store: Store) -> None:
    assert decide(store, DAY, CONFIG, START).action is None
    day(store, 0, passed_novel_positive_rate=0)
    now = day(store, 1, passed_novel_positive_rate=1)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 2, passed_novel_positive_rate=0)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 3, passed_novel_positive_rate=0)
    decision = decide(store, DAY, CONFIG, now)
    assert decision.action == "refresh" and "novel_positive_rate" in decision.reason
    assert decide(store, timedelta(hours=1), CONFIG, now).action is None, "windows of another length say nothing"


def test_evidence_is_used_once_and_pipelines_cool_down(store: Store) -> None:
    for number in (0, 1):
        now = day(store, number, passed_leak=0)
    decision = decide(store, DAY, CONFIG, now)
    remember(store, decision, now, submitted=False)
    assert decide(store, DAY, CONFIG, now).action == "refresh", "a dry run changes nothing"
    remember(store, decision, now, submitted=True)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 2, passed_leak=0)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 3, passed_leak=0)
    assert decide(store, DAY, CONFIG, now).action == "refresh"
    cool = CONFIG.model_copy(update={"cooldown_hours": {"refresh": 100}})
    cooling = decide(store, DAY, cool, now)
    assert cooling.action is None and "cooling down" in cooling.reason


def test_refreshes_that_heal_nothing_lead_to_fine_tuning(store: Store) -> None:
    number = 0
    for _ in range(CONFIG.finetune_after_refreshes):
        for _ in range(2):
            now = day(store, number, passed_drift_share=0)
            number += 1
        decision = decide(store, DAY, CONFIG, now)
        assert decision.action == "refresh"
        remember(store, decision, now, submitted=True)
    for _ in range(2):
        now = day(store, number, passed_drift_share=0)
        number += 1
    assert decide(store, DAY, CONFIG, now).action == "finetune"


def test_other_signs_name_other_pipelines(store: Store) -> None:
    for number in (0, 1):
        now = day(store, number, passed_match_rate=0, unknown_items=0.01)
    assert decide(store, DAY, CONFIG, now).action == "finetune"
    for number in (2, 3):
        now = day(store, number, passed_match_rate=0, unknown_items=0.3, unknown_item_users=40)
    assert decide(store, DAY, CONFIG, now).action == "clusters"


def test_a_few_users_make_no_new_clusters_due(store: Store) -> None:
    for number in (0, 1):
        now = day(store, number, unknown_items=0.9, unknown_item_users=CONFIG.min_users - 1)
    assert decide(store, DAY, CONFIG, now).action is None
