"""Every measure: by hand on a small log, against its function on a random one, and twice the same."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.export import export
from monitoring.histories import fold
from monitoring.store import Store, micros
from monitoring.windows import ALL, Window, measure
from newfound import offpolicy
from newfound.config import MonitoringConfig
from newfound.evaluation import measures
from newfound.events import AnswersEvent, FeedbackEvent, RecommendationEvent, SlotEvent
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
START = datetime(2026, 3, 10, tzinfo=UTC)
STOP = START + timedelta(days=1)
CONFIG = MonitoringConfig(uci_at=(1, 2, 3), retained_days=1)
ITEMS = pa.table({"item_id": ["x", "y"], "cluster": ["a", "b"]})


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


def slot(position: int, item: str, cluster: str, kind: str, **more: Any) -> SlotEvent:
    values = {"propensity": 1.0, "reason": "table" if kind == "novel" else "familiar", **more}
    return SlotEvent(position=position, item=item, cluster=cluster, kind=kind, **values)  # type: ignore[arg-type]


def _measured(store: Store, folder: Path, config: MonitoringConfig = CONFIG, clusters: int = 4) -> Window:
    export(store, folder)
    return measure(folder, START, STOP, config, items=ITEMS, clusters=clusters)


@pytest.fixture
def store(sqlite_url: str) -> Store:
    return Store(sqlite_url, SECRET)


def test_by_hand(store: Store, tmp_path: Path) -> None:
    answers = AnswersEvent(successors=4, leaked=1, generated=2, matched=1)
    candidates: dict[str, Any] = {"propensity": 0.5, "candidates": {"a": 0.5, "b": 0.3}, "floor": 0.1, "eligible": 4}
    other: dict[str, Any] = {"propensity": 0.1, "candidates": {"a": 0.5, "b": 0.3}, "floor": 0.1, "eligible": 4}
    store.write(
        [
            parts.recommendation(
                1,
                at=hours(1),
                user_id="1",
                release="one",
                history_length=10,
                history_at=hours(-1),
                answers=answers,
                slots=(
                    slot(0, "p", "a", "novel", score=2.0, **candidates),
                    slot(1, "q", "b", "familiar", score=1.0),
                    slot(2, "r", "c", "novel", score=4.0, **other),
                    slot(3, "s", "b", "familiar", score=3.0),
                ),
            ),
            parts.recommendation(
                2, at=hours(2), user_id="2", release="two", degraded=True, slots=(slot(0, "p", "a", "novel"),)
            ),
            parts.recommendation(3, at=hours(25), user_id="2", slots=(slot(0, "p", "a", "novel"),)),  # tomorrow's
            # User 1 sees three of four, likes the first, watches a little of the second.
            *(
                parts.feedback(f"s{item}", at=hours(1.1), user_id="1", recommendation_id="r1", item=item, kind="shown")
                for item in "pqr"
            ),
            parts.feedback(1, at=hours(1.2), user_id="1", recommendation_id="r1", item="p", kind="clicked"),
            parts.feedback(2, at=hours(30), user_id="1", recommendation_id="r1", item="p", kind="liked"),  # late
            parts.feedback(3, at=hours(1.2), user_id="1", recommendation_id="r1", item="q", kind="watched", share=0.59),
            # User 2 likes what was recommended, then thinks better of it.
            parts.feedback(4, at=hours(2.1), user_id="2", recommendation_id="r2", item="p", kind="liked"),
            parts.feedback(5, at=hours(2.2), user_id="2", recommendation_id="r2", item="p", kind="dismissed"),
            # Somebody else names user 1's slate: it counts for nobody's slot.
            parts.feedback(6, at=hours(3), user_id="3", recommendation_id="r1", item="s", kind="liked"),
            # On other paths: x (cluster a) and y (cluster b) by item; z is in no cluster.
            parts.feedback(7, at=hours(-48), user_id="4", item="x", kind="liked"),
            parts.feedback(8, at=hours(5), user_id="4", item="x", kind="liked"),
            parts.feedback(9, at=hours(6), user_id="4", item="y", kind="liked"),
            parts.feedback(10, at=hours(6), user_id="4", item="z", kind="liked"),
        ]
    )
    found = _measured(store, tmp_path / "exports").measures
    assert set(found) == {"all", "one", "two"}
    one, everyone = found["one"], found[ALL]
    assert (one["slates"], one["slots"], one["impressions"]) == (1, 4, 3)
    assert one["novelty_ratio"] == pytest.approx(2 / 3)
    assert one["novel_positive_rate"] == 0.5 and one["familiar_positive_rate"] == 0
    assert one["suppression_exposure"] == 2.0  # both novel candidates shown, one of two familiar ones
    assert one["suppression_appeal"] is None and one["suppression_ratio"] is None
    assert (one["leak"], one["match_rate"], one["degraded_share"]) == (0.25, 0.5, 0.0)
    assert (one["history_length"], one["history_age_hours"], one["latency_ms_p50"]) == (10, 2.0, 2.0)
    assert one["reason_share.table"] == 0.5 and one["reason_share.familiar"] == 0.5
    assert one["exposed_clusters"] == 3 and one["exposure_gini"] == pytest.approx(0.25)
    assert one["exposure_entropy"] == pytest.approx(np.log(3) / np.log(4))
    assert (one["novel_score"], one["familiar_score"]) == (3.0, 2.0)
    assert found["two"]["positive_rate"] == 0.0 and found["two"]["degraded_share"] == 1.0
    assert found["two"]["match_rate"] is None
    assert (everyone["slates"], everyone["impressions"]) == (2, 4)
    assert everyone["novelty_ratio"] == 0.75
    # Until the end of the window: user 1 clicked a and watched b; 2 liked a; 3 liked s, in no cluster; 4 a and b.
    assert (everyone["uci@1"], everyone["uci@2"], everyone["uci@3"]) == (3, 2, 0)
    assert everyone["ueuc"] == 3  # (1, a), (4, a), (4, b); user 2's was taken back
    assert everyone["retained_interest"] == pytest.approx(1 / 3)  # (4, a) after 53 hours
    assert everyone["unknown_items"] == pytest.approx(2 / 7)  # s and z
    # The two slots with candidates: uniform would have weighed them 1/2 and 5/2, the likeliest choice 2 and 0.
    assert everyone["offpolicy.uniform.snips"] == pytest.approx(0.5 / 3)
    assert everyone["offpolicy.likeliest.snips"] == 1.0
    assert everyone["offpolicy.likeliest.effective_sample_size"] == 1.0


def _random_log(store: Store, seed: int) -> list[Any]:
    rng = random.Random(seed)
    events: list[Any] = []
    for number in range(400):
        user = str(rng.randrange(30))
        at = START + timedelta(seconds=rng.randrange(-5 * 86_400, 86_400))
        chosen = rng.sample(range(40), 5)
        slots = []
        for position, item in enumerate(chosen):
            kind = rng.choice(["novel", "familiar"])
            probability = rng.uniform(0.05, 1)
            slots.append(
                slot(
                    position,
                    f"i{item}",
                    f"c{item % 9}",
                    kind,
                    propensity=probability,
                    candidates={f"c{item % 9}": probability, "c99": rng.uniform(0, 1)},
                    eligible=rng.randrange(2, 9),
                    score=rng.gauss(0, 1),
                )
            )
        events.append(
            parts.recommendation(number, at=at, user_id=user, release=rng.choice(["one", "two"]), slots=tuple(slots))
        )
        for position, item in enumerate(chosen):
            for step in range(rng.randrange(4)):
                kind = rng.choice(["shown", "clicked", "watched", "liked", "dismissed"])
                events.append(
                    parts.feedback(
                        f"{number}-{position}-{step}",
                        at=at + timedelta(seconds=rng.randrange(7200)),
                        user_id=user,
                        recommendation_id=f"r{number}",
                        item=f"i{item}",
                        kind=kind,
                        share=rng.choice([0.1, 0.6, 0.9]) if kind == "watched" else None,
                    )
                )
    rng.shuffle(events)
    for start in range(0, len(events), 100):
        store.write(events[start : start + 100])
    return events


@pytest.mark.parametrize("seed", [1, 2])
def test_each_measure_is_what_its_function_computes(store: Store, tmp_path: Path, seed: int) -> None:
    events = _random_log(store, seed)
    found = _measured(store, tmp_path / "exports", clusters=12).measures
    outcomes: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, FeedbackEvent):
            row = type("Row", (), {**event.model_dump(), "at": micros(event.at)})
            outcomes[event.recommendation_id or "", event.item].append(row)
    for release in ("one", "two", ALL):
        slots = [
            (recommendation, one)
            for recommendation in events
            if isinstance(recommendation, RecommendationEvent)
            and START <= recommendation.at < STOP
            and release in (recommendation.release, ALL)
            for one in recommendation.slots
        ]
        shown = np.array([bool(outcomes[r.id, s.item]) for r, s in slots])
        positive = np.array([any(e[3] for e in fold(outcomes[r.id, s.item], CONFIG)) for r, s in slots])
        novel = np.array([s.kind == "novel" for _, s in slots])
        of = found[release]
        assert of["novelty_ratio"] == pytest.approx(measures.novelty_ratio(novel[shown]))
        assert of["novel_positive_rate"] == pytest.approx(measures.positive_rate(positive, novel & shown))
        assert of["familiar_positive_rate"] == pytest.approx(measures.positive_rate(positive, ~novel & shown))
        suppression = measures.suppression_ratio(novel, shown, positive)
        assert of["suppression_exposure"] == pytest.approx(suppression.exposure)
        assert of["suppression_appeal"] == pytest.approx(suppression.appeal)
        assert of["suppression_ratio"] == pytest.approx(suppression.ratio)
        counts = np.zeros(12)
        for (_, one), was_shown in zip(slots, shown, strict=True):
            counts[int(one.cluster[1:])] += was_shown
        assert of["exposure_gini"] == pytest.approx(measures.gini(counts))
        assert of["exposure_entropy"] == pytest.approx(measures.normalised_entropy(counts))
    chosen = [i for i, (_, s) in enumerate(slots) if novel[i] and shown[i]]
    rewards = positive[chosen].astype(float)
    propensities = np.array([slots[i][1].propensity for i in chosen])
    uniform = np.array([1 / slots[i][1].eligible for i in chosen])
    expected = offpolicy.snips(rewards, uniform, propensities)
    of = found[ALL]
    assert of["offpolicy.uniform.snips"] == pytest.approx(expected.value)
    assert of["offpolicy.uniform.standard_error"] == pytest.approx(expected.standard_error)
    assert of["offpolicy.uniform.effective_sample_size"] == pytest.approx(expected.effective_sample_size)

    rows: list[tuple[str, str, int, bool, bool]] = []  # user, cluster, ms, positive, consumed
    for recommendation in events:
        if isinstance(recommendation, RecommendationEvent):
            for one in recommendation.slots:
                group = outcomes[recommendation.id, one.item]
                for _, at, _, good in fold(group, CONFIG):
                    consumed = any(e.kind in ("clicked", "watched", "liked") for e in group)
                    rows.append((recommendation.user_id, one.cluster, at, good, consumed))
    stop = int(STOP.timestamp() * 1000)
    rows = [row for row in rows if row[2] <= stop]
    users, clusters, times, good, consumed = (np.array(column) for column in zip(*rows, strict=True))
    uci = measures.uci(users[consumed], clusters[consumed], times[consumed], CONFIG.uci_at, stop)
    assert [of[f"uci@{n}"] for n in CONFIG.uci_at] == uci
    assert of["retained_interest"] == pytest.approx(measures.retained_interest(users, clusters, times, good, days=1))
    today = times >= int(START.timestamp() * 1000)
    assert of["ueuc"] == measures.ueuc(users[today], clusters[today], good[today])


def test_export_and_measures_twice_are_the_same(store: Store, tmp_path: Path) -> None:
    events = _random_log(store, 3)
    exports = tmp_path / "exports"
    first = _measured(store, exports)
    names = sorted(path.name for path in exports.rglob("*.parquet"))
    assert export(store, exports) == {"slates": 0, "slots": 0, "feedback": 0}
    second = _measured(store, exports)
    assert second.measures == first.measures
    assert second.sample.equals(first.sample)
    assert sorted(path.name for path in exports.rglob("*.parquet")) == names
    rows = sum(pq.read_metadata(path).num_rows for path in (exports / "feedback").glob("*.parquet"))
    assert rows == sum(isinstance(event, FeedbackEvent) for event in events)
    assert "user_id" not in pq.read_schema(next((exports / "feedback").glob("*.parquet"))).names


def test_an_export_cut_short_leaves_nothing_twice(store: Store, tmp_path: Path) -> None:
    _random_log(store, 4)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export(store, whole)
    export(store, broken, batch=100)
    for part in sorted((broken / "slates").glob("*.parquet"))[2:]:
        part.unlink()  # as if it had died between slots and slates
    export(store, broken, batch=70)
    for name in ("slates", "slots", "feedback"):
        assert pq.read_table(whole / name).num_rows == pq.read_table(broken / name).num_rows


def test_nothing_happened(store: Store, tmp_path: Path) -> None:
    found = _measured(store, tmp_path / "exports")
    assert set(found.measures) <= {ALL} and not len(found.sample)
