"""From a history to a slate, step by step, over a made-up release."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.config import PolicyConfig
from newfound.errors import DataError, ReleaseError
from newfound.recommend.catalogue import AvailableCatalogue, Catalogue, UserHistory
from newfound.recommend.decision import AnswerCache, PlannerQuery, SlateRequest, draft
from newfound.recommend.policy import Kind, Reason
from newfound.recommend.recommender import Recommender, history_of_items, history_of_user, released_policy
from newfound.release.takedown import Takedown, read_takedown
from newfound.schema import HISTORIES
from tests.serving.synthetic import World, histories, history_table, publish_world

WORLD = World(holes=40)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Idle OpenMP workers between thousands of tiny products would cost more than the products."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("recommend")
    return base / "releases" / publish_world(WORLD, base / "releases", base / "parts").id


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.open(folder)


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Catalogue:
    return Catalogue.open(folder)


def user(number: int, length: int = 60) -> UserHistory:
    row = histories(WORLD, number + 1, length)[number]
    return UserHistory(row["item_ids"], row["engagements"], row["positives"], row["times"][-1])


def in_clusters(*clusters: int, positive: bool = True) -> UserHistory:
    """One event in each of some clusters, oldest first."""
    items = [f"i{cluster}.0" for cluster in clusters]
    return UserHistory(items, [1.0] * len(items), [positive] * len(items))


# --- whole slates ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, 12),
    k=st.integers(1, 25),
    novel=st.one_of(st.none(), st.integers(0, 25), st.floats(0, 1)),
    seed=st.integers(0, 2**32),
)
def test_slates_hold_what_they_promise(recommender, number, k, novel, seed):
    history = user(number)
    slate = recommender.recommend(history, k=k, novel=novel, seed=seed)
    seen = {recommender.catalogue.cluster_of[item] for item in history.item_ids}
    assert len(slate.items) == k and len({entry.item for entry in slate.items}) == k
    for entry in slate.items:
        assert entry.item not in history.item_ids
        assert recommender.catalogue.cluster_of[entry.item] == entry.cluster
        assert (entry.slot is Kind.NOVEL) == (entry.cluster not in seen)
        assert 0 < entry.propensity <= 1
    if isinstance(novel, int):
        assert sum(entry.slot is Kind.NOVEL for entry in slate.items) >= min(novel, k)
    again = recommender.recommend(history, k=k, novel=novel, seed=seed)
    assert again.items == slate.items


def test_novel_clusters_are_shown_as_often_as_their_propensity_says(catalogue):
    """Over many seeds; no memory of a planner, so every request decides alike."""
    recommender = Recommender(catalogue, None, policy=PolicyConfig(exploration=0.2, temperature=0.5))
    history = user(4)
    shown: Counter[str] = Counter()
    told: dict[str, float] = {}
    rounds = 1200
    for seed in range(rounds):
        first = next(e for e in recommender.recommend(history, k=6, novel=2, seed=seed).items if e.slot is Kind.NOVEL)
        shown[first.cluster] += 1
        assert told.setdefault(first.cluster, first.propensity) == pytest.approx(first.propensity)
    assert sum(told.values()) <= 1 + 1e-9
    for cluster, propensity in told.items():
        assert shown[cluster] / rounds == pytest.approx(propensity, abs=0.05)


def test_exclude_and_takedown_hold_everywhere(folder):
    history = user(3)
    free = Recommender.open(folder)
    first = free.recommend(history, k=20, novel=10, seed=5)
    items = frozenset(entry.item for entry in first.items[:5])
    clusters = frozenset({first.items[-1].cluster})
    held = Recommender.open(folder, takedown=Takedown(items, clusters | {"l3.0", "unknown"}))
    for seed in range(20):
        for entry in held.recommend(history, k=20, novel=10, seed=seed, exclude=["i7.1", "i8.2"]).items:
            assert entry.item not in items | {"i7.1", "i8.2"}
            assert entry.cluster not in clusters
            assert entry.item not in held.catalogue.clusters.items_under("l3.0")


def test_the_list_beside_the_releases_is_read(folder, tmp_path):
    assert read_takedown(str(folder.parent)) == Takedown()
    (tmp_path / "takedown.json").write_text(json.dumps({"items": ["a"], "clusters": ["c"]}))
    assert read_takedown(str(tmp_path)) == Takedown(frozenset({"a"}), frozenset({"c"}))
    for broken in ("[]", "{", '{"items": "a"}', '{"other": []}', '{"items": [1]}'):
        (tmp_path / "takedown.json").write_text(broken)
        with pytest.raises(ReleaseError, match="takedown.json"):
            read_takedown(str(tmp_path))


def test_a_user_without_a_past_gets_what_the_ranker_ranks_without_one(recommender):
    slate = recommender.recommend(UserHistory(), k=10, seed=1)
    assert {entry.reason for entry in slate.items} <= {Reason.RANKER, Reason.EXPLORATION}
    assert {entry.slot for entry in slate.items} == {Kind.NOVEL}


def test_a_user_who_has_seen_everything_gets_what_they_like(recommender):
    everywhere = in_clusters(*range(WORLD.clusters))
    slate = recommender.recommend(everywhere, k=10, novel=5, seed=1)
    assert len(slate.items) == 10 and {entry.slot for entry in slate.items} == {Kind.FAMILIAR}


def test_dislikes_make_no_interest_but_are_not_novel_either(recommender):
    slate = recommender.recommend(in_clusters(1, 2, 3, positive=False), k=12, seed=1)
    assert not {"c1", "c2", "c3"} & {entry.cluster for entry in slate.items}


def test_an_exhausted_cluster_is_neither_novel_nor_familiar(folder):
    recommender = Recommender.open(folder)
    all_of_one = recommender.catalogue.clusters.items_under("c2")
    slate = recommender.recommend(history_of_items(all_of_one), k=8, seed=1)
    assert "c2" not in {entry.cluster for entry in slate.items} and len(slate.items) == 8
    for seed in range(10):
        slate = recommender.recommend(user(3), k=20, novel=18, seed=seed, exclude=all_of_one)
        assert "c2" not in {entry.cluster for entry in slate.items if entry.slot is Kind.NOVEL}


def test_popularity_stands_in_for_the_ranker(catalogue):
    slate = Recommender(catalogue, None).recommend(user(3), k=10, novel=3, seed=1)
    assert len(slate.items) == 10 and all(entry.score is None for entry in slate.items)
    for entry in slate.items:
        assert entry.item in catalogue.popular_items(entry.cluster)[:20]


# --- when the planner is asked ----------------------------------------------------------------------------------------


class Planner:
    """A planner that always knows the same answer, and what it was asked."""

    def __init__(self, **answer: float) -> None:
        self.answer, self.asked = answer, list[PlannerQuery]()

    def answers(self, asks: Sequence[PlannerQuery]) -> list[dict[str, float]]:
        self.asked.extend(asks)
        return [self.answer for _ in asks]


COLD = PolicyConfig(temperature=0.01, exploration=0.0)
SURE = {"c9": math.log(0.99), "c11": math.log(0.009)}


def test_it_is_asked_for_a_single_interest_and_its_answer_is_remembered(catalogue):
    planner = Planner(**SURE)
    recommender = Recommender(catalogue, None, planner, COLD)
    slate = recommender.recommend(in_clusters(5), k=6, novel=2, seed=3)
    assert planner.asked == [PlannerQuery(("c5",))]
    novel = [entry for entry in slate.items if entry.slot is Kind.NOVEL]
    assert (novel[0].cluster, novel[0].reason) == ("c9", Reason.PLANNER)
    assert novel[0].because == (catalogue.description["c5"],)
    assert recommender.recommend(in_clusters(5), k=6, novel=2, seed=4).items[1].reason is Reason.PLANNER
    assert len(planner.asked) == 1


def test_it_is_asked_for_a_pair_outside_a_partial_table(catalogue):
    assert not np.isfinite(catalogue.log_probs([("c0", "c1")])).any()
    planner = Planner(**SURE)
    Recommender(catalogue, None, planner).recommend(in_clusters(0, 1), k=6, novel=2, seed=3)
    assert planner.asked == [PlannerQuery(("c0", "c1"))]


def test_it_is_not_asked_where_the_table_knows(catalogue):
    planner = Planner(**SURE)
    recommender = Recommender(catalogue, None, planner)
    recommender.recommend(in_clusters(14, 15), k=6, novel=2, seed=3)
    recommender.recommend(in_clusters(20, 0, 1), k=6, novel=2, seed=3)  # of three pairs, (0, 1) is outside the table
    recommender.recommend(UserHistory(), k=6, novel=2, seed=3)
    recommender.recommend(in_clusters(5), k=6, novel=0, seed=3)
    assert planner.asked == []


def test_without_planner_and_table_what_people_choose_decides(catalogue):
    made = draft(AvailableCatalogue(catalogue), in_clusters(5), SlateRequest(6, 3), 3, COLD)
    plan = made.plan()
    terms = catalogue.cluster_terms.of(np.array([[5]]), [1.0], np.array([c != "c5" for c in catalogue.interface]))
    expected = catalogue.decision.without_planner.offsets(terms)
    assert plan.planner is None
    assert plan.offsets == pytest.approx({f"c{at}": expected[at] for at in range(24) if at != 5})
    best = max(plan.offsets, key=plan.offsets.__getitem__)
    slate = Recommender(catalogue, None, policy=COLD).recommend(in_clusters(5), k=6, novel=3, seed=3)
    novel = [entry for entry in slate.items if entry.slot is Kind.NOVEL]
    assert novel[0].cluster == best and {entry.reason for entry in novel} == {Reason.POPULAR}


def test_the_planner_speaks_for_all_pairs_at_once_and_for_each_with_its_probability(catalogue):
    history = in_clusters(14, 15, 16)
    made = draft(AvailableCatalogue(catalogue), history, SlateRequest(6, 3), 3, COLD)
    plan = made.plan()
    allowed = np.array([cluster in made.eligible for cluster in catalogue.interface])
    rows = catalogue.log_probs([context for context, _ in made.contexts])[:, allowed].astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    pooled = np.array([probability for _, probability in made.contexts]) @ rows
    gain = np.array([plan.planner.gain[cluster] for cluster in made.eligible])
    np.testing.assert_allclose(gain, pooled - pooled.mean(), atol=1e-4)
    assert set(plan.planner.because.values()) <= {context for context, _ in made.contexts}


def _items(catalogue: Catalogue) -> pa.Table:
    items = sorted(catalogue.titles)
    return pa.table(
        {
            "item_id": items,
            "title": [catalogue.titles[item] for item in items],
            "popularity": pa.array([1] * len(items), pa.int64()),
            "twins": pa.array([None] * len(items), pa.string()),
        }
    )


def test_the_answer_cache_forgets_the_oldest():
    cache = AnswerCache(2)
    cache.put(PlannerQuery(("a",)), {"x": -0.1})
    assert cache.get(("a",)) == {"x": -0.1} and cache.get(("b",)) is None
    cache.put(PlannerQuery(("b",)), {"x": -0.1})
    cache.put(PlannerQuery(("c",)), {"x": -0.1})
    assert len(cache) == 2 and cache.get(("a",)) is None and cache.get(("c",)) is not None


def test_a_release_without_a_decision_serves_ranker_and_planner_alike(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("decision"))
    slate = Recommender.open(bare, takedown=Takedown()).recommend(user(3), k=10, novel=5, seed=1)
    assert sum(entry.slot is Kind.NOVEL for entry in slate.items) == 5


# --- reading ---------------------------------------------------------------------------------------------------------


def test_histories_from_a_file(tmp_path):
    rows = histories(WORLD, 3, 20)
    pq.write_table(history_table(rows).cast(HISTORIES), tmp_path / "histories.parquet")
    history = history_of_user(tmp_path, "u1")
    assert list(history.item_ids) == rows[1]["item_ids"] and history.newest == rows[1]["times"][-1]
    with pytest.raises(DataError, match="nobody"):
        history_of_user(tmp_path / "histories.parquet", "nobody")


def test_the_released_policy_is_used(tmp_path):
    policy = PolicyConfig(novel_share=0.5, k=4)
    world = World(policy=policy)
    folder = tmp_path / "releases" / publish_world(world, tmp_path / "releases", tmp_path / "parts").id
    assert released_policy(folder) == policy
    assert len(Recommender.open(folder).recommend(user(2), seed=1).items) == 4


def test_a_release_whose_items_lack_one_is_refused(folder, tmp_path):
    catalogue = Catalogue.open(folder)
    with pytest.raises(ReleaseError, match="items.parquet: lacks item"):
        Catalogue("r", catalogue.clusters, None, _items(catalogue).slice(1))
    with pytest.raises(ReleaseError, match="items.parquet: cannot be read"):
        Catalogue.open(tmp_path)
