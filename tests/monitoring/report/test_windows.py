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

from monitoring.report.evidently import drift_page
from monitoring.report.export import export
from monitoring.report.windows import ALL, Window, measure
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.users.interactions import fold
from newfound.evaluation import off_policy as offpolicy
from newfound.events import AnswersEvent, FeedbackEvent, RecommendationEvent, SlotEvent
from newfound.measures import gini, normalised_entropy
from newfound.release.new_items import NewItem, NewItems, add_new_items, file_of
from tests.monitoring import servers as parts
from tests.reference import measures
from tests.release.gates import HELD

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
    # Until the end of the window: 1 clicked a and watched b; 2 liked a; 4 a and b. User 3's like counts for nobody.
    assert (everyone["uci@1"], everyone["uci@2"], everyone["uci@3"]) == (3, 2, 0)
    assert everyone["ueuc"] == 3  # (1, a), (4, a), (4, b); user 2's was taken back
    assert everyone["retained_interest"] == pytest.approx(1 / 3)  # (4, a) after 53 hours
    assert everyone["unknown_items"] == pytest.approx(1 / 9)  # z, a third of what one user of three consumed
    assert (everyone["unknown_item_users"], everyone["users"], one["users"]) == (1, 2, 1)
    # A release's own: what was consumed on its slates.
    assert (one["uci@1"], one["uci@2"], one["ueuc"], one["retained_interest"]) == (1, 1, 1, 0)
    assert (found["two"]["uci@1"], found["two"]["uci@2"]) == (1, 0)
    # The two slots with candidates: uniform would have weighed them 1/2 and 5/2, the likeliest choice 2 and 0. They are
    # of one user, so the other half of the users is empty and the model predicts nothing: doubly robust is IPS.
    assert everyone["offpolicy.uniform.ips"] == pytest.approx(0.5 / 2)
    assert everyone["offpolicy.uniform.snips"] == pytest.approx(0.5 / 3)
    assert everyone["offpolicy.uniform.dr"] == pytest.approx(0.5 / 2)
    assert everyone["offpolicy.uniform.ips_error"] is None, "one slate says nothing of what varies among slates"
    assert everyone["offpolicy.uniform.effective_sample_size"] == pytest.approx(9 / 6.5)
    assert everyone["offpolicy.likeliest.ips"] == 1.0 and everyone["offpolicy.likeliest.snips"] == 1.0
    assert everyone["offpolicy.likeliest.effective_sample_size"] == 1.0
    assert one["offpolicy.uniform.ips"] == 0.25 and "offpolicy.uniform.ips" not in found["two"]


def _slate(number: int, **more: Any) -> RecommendationEvent:
    choice: dict[str, Any] = {"propensity": 0.5, "candidates": {"a": 0.5, "b": 0.3}, "floor": 0.1, "eligible": 4}
    slots = (slot(0, "x", "a", "novel", **choice), slot(1, "y", "b", "familiar"))
    return parts.recommendation(number, at=hours(1), user_id=str(number), slots=slots, **more)


def _likes(count: int, recommendation_id: str | None) -> list[FeedbackEvent]:
    """One user's likes of as many items, on a slate of that id or on none."""
    about = {"user_id": "eager", "kind": "liked", "recommendation_id": recommendation_id}
    return [parts.feedback(f"e{n}", at=hours(2 + n / 1000), item=f"nowhere{n}", **about) for n in range(count)]


@pytest.mark.parametrize("names", ["an invented slate", "somebody else's slate", "no slate"])
def test_one_users_many_likes_move_nothing_that_makes_a_pipeline_due(names: str, store: Store, tmp_path: Path) -> None:
    """Two thousand likes of items that nobody knows, beside ten users who each liked what they were shown."""
    for number in range(10):
        liked = {"recommendation_id": f"r{number}", "user_id": str(number), "item": "x", "kind": "liked"}
        store.write([_slate(number), parts.feedback(number, at=hours(1.1), **liked)])
    before = _measured(store, tmp_path / "before").measures[ALL]
    assert (before["uci@1"], before["ueuc"], before["unknown_items"]) == (10, 10, 0)
    named = {"an invented slate": "never-made", "somebody else's slate": "r1", "no slate": None}[names]
    store.write(_likes(2000, named))
    store.write([parts.feedback("x", at=hours(3), user_id="eager", item="x", kind="liked", recommendation_id=named)])
    after = _measured(store, tmp_path / "after").measures[ALL]
    if named is not None:
        assert after == before
        return
    # What was consumed without a slate is the user's word: it counts, but as one user's and so far as a day goes.
    assert after["uci@1"] == 10 and after["ueuc"] == 10, "what comes after the day's two hundred does not count"
    assert after["unknown_items"] == pytest.approx(1 / 11) and after["unknown_item_users"] == 1


def test_what_a_client_could_foresee_is_left_out_of_estimates(store: Store, tmp_path: Path) -> None:
    """A client that chooses the seed chooses among slates: such slates were not drawn."""
    for number in range(8):
        seen = {"recommendation_id": f"r{number}", "user_id": str(number), "item": "x"}
        kind = "liked" if number < 6 else "shown"
        store.write([_slate(number, client_seed=number < 4), parts.feedback(number, at=hours(1.1), kind=kind, **seen)])
    of = _measured(store, tmp_path / "exports").measures[ALL]
    assert of["impressions"] == 8 and of["novel_positive_rate"] == 6 / 8
    # Four slates are left: the likeliest choice, two of four liked, each with probability a half.
    assert of["offpolicy.likeliest.snips"] == 0.5
    assert of["offpolicy.likeliest.effective_sample_size"] == 4


def test_parts_of_an_earlier_version_are_measured(store: Store, tmp_path: Path) -> None:
    store.write([_slate(1), parts.feedback(1, at=hours(1.1), user_id="1", recommendation_id="r1", item="x")])
    whole = _measured(store, tmp_path / "exports").measures
    (part,) = (tmp_path / "exports" / "slots").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["client_seed"]), part)
    assert _measured(store, tmp_path / "exports").measures == whole
    store.write([_slate(2)])
    assert _measured(store, tmp_path / "exports").measures[ALL]["slates"] == 2


def test_suppression_latency_and_drift_by_hand(store: Store, tmp_path: Path) -> None:
    slots = (
        *(slot(place, f"n{place}", "a", "novel", score=1.0) for place in range(4)),
        *(slot(place, f"f{place}", "b", "familiar", score=2.0) for place in range(4, 8)),
    )
    shown = {"n0": "liked", "n1": "shown", "f4": "liked", "f5": "shown", "f6": "shown", "f7": "shown"}
    for day in (-1, 0):
        store.write(
            [
                parts.recommendation(
                    f"{day}.{n}", user_id=str(n), at=hours(1 + 24 * day), latency_ms=float(n), slots=slots
                )
                for n in range(101)
            ]
        )
    store.write(
        [
            parts.feedback(
                f"{n}.{item}", user_id=str(n), at=hours(2), recommendation_id=f"r0.{n}", item=item, kind=kind
            )
            for n in range(10)
            for item, kind in shown.items()
        ]
    )
    found = _measured(store, tmp_path / "exports")
    of = found.measures[ALL]
    # Of ten slates of 101 two of four novel candidates are shown, and half of them liked; all familiar ones, a quarter.
    assert of["suppression_exposure"] == pytest.approx(0.5) and of["suppression_appeal"] == pytest.approx(2.0)
    assert of["suppression_ratio"] == pytest.approx(0.25)
    assert (of["latency_ms_p50"], of["latency_ms_p99"]) == (50.0, 99.0)
    # The same impressions but for the score of novel slots, 1 before and 1.2 now. Evidently's Wasserstein distance is
    # over the reference's standard deviation: mean difference 2/6 * 0.2, deviation of (1, 1, 2, 2, 2, 2).
    before, now = found.sample, found.sample.copy()
    now.loc[now["slot"] == "novel", "score"] = 1.2
    snapshot, distances = drift_page(now, before, tmp_path / "drift.html", STOP)
    moved = float(np.mean(np.abs(np.sort(now["score"]) - np.sort(before["score"]))))
    assert distances["drift.score"] == pytest.approx(moved / before["score"].std(ddof=0))
    assert distances["drift.slot"] == distances["drift.cluster"] == distances["drift.positive"] == 0
    columns = [name for name in distances if name not in ("drift_share", "drift.count")]
    assert distances["drift_share"] == pytest.approx(1 / len(columns))
    assert snapshot is not None and "drift" in (tmp_path / "drift.html").read_text()


def test_successor_jaccard_by_hand(tmp_path: Path) -> None:
    from monitoring.report.job import _of_releases
    from newfound.release import store as release
    from tests.serving.synthetic import World, publish_world

    root = tmp_path / "releases"
    first = publish_world(World(), root, tmp_path / "first")
    items, clusters, jaccard = _of_releases(str(root), None)
    assert clusters == 24 and items is not None and items.num_rows == 24 * 30 and not jaccard
    # One context's five best keep the first alone: of the nine in either, one is in both.
    file = tmp_path / "first" / "table" / "log_probs.npy"
    table = np.load(file)
    best = np.argsort(-table[0], kind="stable")
    table[0, best[1:5]], table[0, best[5:9]] = table[0, best[5:9]], table[0, best[1:5]].copy()
    np.save(file, table)
    parts_ = {name: tmp_path / "first" / name for name in ("clusters", "table", "ranker", "items.parquet")}
    release.publish(parts_, str(root), lineage={"n": 2}, measures={}, fits={}, gates=HELD)
    contexts = 24 * 23
    assert release.current(str(root)) != first.id
    assert _of_releases(str(root), None)[2] == {
        "successor_jaccard": pytest.approx((contexts - 1 + 1 / 9) / contexts),
    }


def test_what_appeared_after_the_release_is_no_unknown_item(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from monitoring.report.job import _of_releases
    from tests.serving.synthetic import World, publish_world

    root = tmp_path / "releases"
    release_id = publish_world(World(), root, tmp_path / "parts").id
    known = _of_releases(str(root), None)[0]
    ones = np.ones((2, 2), dtype=np.float32)
    placed = tuple(NewItem(item=f"late{n}", title="Late", leaf=f"l{n}.1", row="0" * 64) for n in (3, 99))
    add_new_items(str(root), NewItems(release_id, START, placed, ones, ones, ones))
    items, clusters, _ = _of_releases(str(root), None)
    assert known is not None and items is not None and clusters == 24
    assert items.slice(known.num_rows).to_pylist() == [{"item_id": "late3", "cluster": "c3"}], "no leaf is made up"
    (root / file_of(release_id)).write_bytes(b"?")
    assert _of_releases(str(root), None)[0] == known and "new items are left out" in caplog.text


def _random_log(store: Store, seed: int, shuffled: int = 0) -> list[Any]:
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
    random.Random(seed + shuffled).shuffle(events)
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
        assert of["exposure_gini"] == pytest.approx(gini(counts))
        assert of["exposure_entropy"] == pytest.approx(normalised_entropy(counts))
    _compare_estimates(found, slots, novel & shown, positive)
    of = found[ALL]
    rows: list[tuple[str, str, int, bool, bool, str]] = []  # user, cluster, ms, positive, consumed, release
    for recommendation in events:
        if isinstance(recommendation, RecommendationEvent):
            for one in recommendation.slots:
                group = outcomes[recommendation.id, one.item]
                for _, at, _, good in fold(group, CONFIG):
                    consumed = any(e.kind in ("clicked", "watched", "liked") for e in group)
                    rows.append((recommendation.user_id, one.cluster, at, good, consumed, recommendation.release))
    stop = int(STOP.timestamp() * 1000)
    rows = [row for row in rows if row[2] <= stop]
    users, clusters, times, good, consumed, of_release = (np.array(column) for column in zip(*rows, strict=True))
    for release in ("one", "two", ALL):
        of, here = found[release], (of_release == release) | (release == ALL)
        ate = consumed & here
        uci = measures.uci(users[ate], clusters[ate], times[ate], CONFIG.uci_at, stop)
        assert [of[f"uci@{n}"] for n in CONFIG.uci_at] == uci
        retained = measures.retained_interest(users[here], clusters[here], times[here], good[here], days=1)
        assert of["retained_interest"] == pytest.approx(retained)
        today = here & (times >= int(START.timestamp() * 1000))
        assert of["ueuc"] == measures.ueuc(users[today], clusters[today], good[today])


def _compare_estimates(found: Any, slots: list[Any], offered: Any, positive: Any) -> None:
    """The estimates in SQL against the library's, the reward model made anew: the other half's rates, shrunk."""
    logged = [(r, s, float(positive[i])) for i, (r, s) in enumerate(slots) if offered[i]]
    half = {r.user_key: int(r.user_key[-1], 16) % 2 for r, _, _ in logged}
    good: list[dict[str, list[float]]] = [defaultdict(list), defaultdict(list)]
    for r, s, reward in logged:
        good[half[r.user_key]][s.cluster].append(reward)
    overall = [float(np.mean([x for xs in of.values() for x in xs])) for of in good]

    def model(r: Any, cluster: str) -> float:
        other = 1 - half[r.user_key]
        seen = good[other].get(cluster, [])
        return (sum(seen) + 10 * overall[other]) / (len(seen) + 10)

    for release in ("one", "two", ALL):
        rows = [(r, s, reward) for r, s, reward in logged if release in (r.release, ALL)]
        rewards, propensities = np.array([x for _, _, x in rows]), np.array([s.propensity for _, s, _ in rows])
        groups = np.array([r.id for r, _, _ in rows])
        predicted = np.array([model(r, s.cluster) for r, s, _ in rows])
        tops = [[c for c, p in s.candidates.items() if p == max(s.candidates.values())] for _, s, _ in rows]
        rest = [overall[1 - half[r.user_key]] for r, _, _ in rows]
        for policy in ("uniform", "likeliest"):
            if policy == "uniform":
                target = np.array([1 / s.eligible for _, s, _ in rows])
                expected = np.array(
                    [
                        (sum(model(r, c) for c in s.candidates) + (s.eligible - len(s.candidates)) * rest[n])
                        / s.eligible
                        for n, (r, s, _) in enumerate(rows)
                    ]
                )
            else:
                target = np.array([(s.cluster in tops[n]) / len(tops[n]) for n, (_, s, _) in enumerate(rows)])
                expected = np.array([np.mean([model(r, c) for c in tops[n]]) for n, (r, _, _) in enumerate(rows)])
            estimates = {
                "ips": offpolicy.ips(rewards, target, propensities, groups=groups),
                "snips": offpolicy.snips(rewards, target, propensities, groups=groups),
                "dr": offpolicy.doubly_robust(rewards, target, propensities, predicted, expected, groups=groups),
            }
            for name, estimate in estimates.items():
                of = found[release]
                assert of[f"offpolicy.{policy}.{name}"] == pytest.approx(estimate.value), (policy, name)
                assert of[f"offpolicy.{policy}.{name}_error"] == pytest.approx(estimate.standard_error), (policy, name)
                size = of[f"offpolicy.{policy}.effective_sample_size"]
                assert size == pytest.approx(estimate.effective_sample_size)


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


def test_measures_depend_on_no_order(tmp_path: Path) -> None:
    """Threads add what they read in any order: however the log lies in its parts, no measure differs in any bit."""
    found = []
    for number, batch in enumerate((10_000, 7)):
        store = Store(f"sqlite:///{tmp_path}/{number}.db", SECRET)
        events = _random_log(store, 5, shuffled=number)
        export(store, tmp_path / f"{number}", batch=batch)
        store.close()
        found.append(measure(tmp_path / f"{number}", START, STOP, CONFIG, items=ITEMS, clusters=12))
    assert len(events) > 1000 and found[0].measures == found[1].measures
    assert found[0].sample.equals(found[1].sample)


def test_nothing_happened(store: Store, tmp_path: Path) -> None:
    found = _measured(store, tmp_path / "exports")
    assert set(found.measures) <= {ALL} and not len(found.sample)
