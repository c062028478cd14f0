"""From a history to a slate, step by step, over a made-up release."""

from __future__ import annotations

import json
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
from newfound.recommend.policy import Choice, Kind, NovelSlot, Option, Reason
from newfound.recommend.recommender import Recommender, history_of_items, history_of_user, released_policy
from newfound.recommend.slate import Plan, compose
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
        eligible = len(recommender.catalogue.interface) - len(seen)
        assert sum(entry.slot is Kind.NOVEL for entry in slate.items) >= min(novel, k, eligible)
    again = recommender.recommend(history, k=k, novel=novel, seed=seed)
    assert again.items == slate.items


def test_novel_clusters_are_shown_as_often_as_their_propensity_says(catalogue):
    """Over many seeds; no memory of a planner, so every request decides alike."""
    recommender = Recommender(catalogue, None, policy=PolicyConfig(exploration=0.2))
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


def test_a_user_without_a_past_gets_popular_items_of_as_many_clusters(recommender):
    slate = recommender.recommend(UserHistory(), k=10, seed=1)
    assert {entry.reason for entry in slate.items} <= {Reason.POPULAR, Reason.EXPLORATION}
    assert len({entry.cluster for entry in slate.items}) >= 9


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

    def __init__(self, *clusters: str) -> None:
        self.clusters, self.asked = clusters, list[PlannerQuery]()

    def answers(self, asks: Sequence[PlannerQuery], k: int) -> list[list[str]]:
        self.asked.extend(asks)
        return [[c for c in self.clusters if ask.allowed is None or c in ask.allowed][:k] for ask in asks]


def test_it_is_asked_for_a_single_interest_and_its_answer_is_remembered(catalogue):
    planner = Planner("c9", "c11")
    recommender = Recommender(catalogue, None, planner)
    slate = recommender.recommend(in_clusters(5), k=6, novel=2, seed=3)
    assert planner.asked == [PlannerQuery(("c5",), None)]
    novel = [entry for entry in slate.items if entry.slot is Kind.NOVEL]
    assert [(entry.cluster, entry.reason) for entry in novel] == [("c9", Reason.PLANNER), ("c11", Reason.PLANNER)]
    assert recommender.recommend(in_clusters(5), k=6, novel=2, seed=4).items[1].reason is Reason.PLANNER
    assert len(planner.asked) == 1


def test_it_is_asked_for_a_pair_outside_a_partial_table(catalogue):
    assert catalogue.answers(("c0", "c1")) == ()
    planner = Planner("c9")
    Recommender(catalogue, None, planner).recommend(in_clusters(0, 1), k=6, novel=2, seed=3)
    assert planner.asked == [PlannerQuery(("c0", "c1"), None)]


def test_it_is_asked_where_every_successor_was_consumed_out_of_those_never_consumed(catalogue):
    context = ("c10", "c12")
    had = [int(choice.cluster[1:]) for choice in catalogue.answers(context)]
    disliked = in_clusters(*had, positive=False)
    history = UserHistory(
        [*disliked.item_ids, "i10.0", "i12.0"], [*disliked.engagements, 1.0, 1.0], [*disliked.positives, True, True]
    )
    allowed = tuple(c for c in catalogue.interface if c not in {"c10", "c12", *(f"c{one}" for one in had)})
    planner = Planner("c10", f"c{had[0]}", allowed[3], allowed[1])
    slate = Recommender(catalogue, None, planner).recommend(history, k=6, novel=1, seed=3)
    assert planner.asked == [PlannerQuery(context, allowed)]
    assert [e.cluster for e in slate.items if e.reason is Reason.PLANNER] == [allowed[3]]


def test_it_is_not_asked_where_the_table_knows(catalogue):
    planner = Planner("c9")
    recommender = Recommender(catalogue, None, planner)
    recommender.recommend(in_clusters(14, 15), k=6, novel=2, seed=3)
    recommender.recommend(UserHistory(), k=6, novel=2, seed=3)
    recommender.recommend(in_clusters(5), k=6, novel=0, seed=3)
    assert planner.asked == []


def test_without_an_answer_the_parents_are_asked_then_what_is_popular(catalogue):
    slate = Recommender(catalogue, None).recommend(in_clusters(5), k=6, novel=3, seed=3)
    parents = catalogue.back_off(("c5",))
    novel = [entry for entry in slate.items if entry.slot is Kind.NOVEL]
    assert [entry.cluster for entry in novel] == [c for c in parents if c != "c5"][:3]
    assert {entry.reason for entry in novel} == {Reason.PARENT}
    bare = Catalogue(catalogue.release, catalogue.clusters, None, _items(catalogue))
    slate = Recommender(bare, None).recommend(in_clusters(5), k=6, novel=3, seed=3)
    assert {entry.reason for entry in slate.items if entry.slot is Kind.NOVEL} == {Reason.POPULAR}


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


def test_back_off_sums_over_siblings_by_hand(catalogue):
    total: Counter[str] = Counter()
    realm = [f"c{cluster}" for cluster in range(6)]
    for a in realm:
        for b in realm:
            for answer in (catalogue.table.successors((a, b)) if catalogue.table else None) or ():
                total[answer.cluster] += np.exp(answer.score)
    expected = sorted(total, key=lambda cluster: (-total[cluster], cluster))
    assert list(catalogue.back_off(("c5", "c2"))) == expected == list(catalogue.back_off(("c1",)))


def test_memory_forgets_what_is_no_longer_complete():
    memory = AnswerCache(2)
    memory.put(PlannerQuery(("a",), ("x", "y")), ["x"])
    assert memory.get(("a",), frozenset({"y"})) == ("x",)
    assert memory.get(("a",), frozenset({"y", "z"})) == ()
    memory.put(PlannerQuery(("b",), None), ["x"])
    memory.put(PlannerQuery(("c",), None), ["x"])
    assert len(memory) == 2 and memory.get(("a",), frozenset()) == ()
    assert memory.get(("b",), frozenset({"anything"})) == ("x",)


def test_silence_of_the_planner_is_conditioned_on(catalogue):
    """With an answer at hand for some contexts only, the propensity is marginal over the contexts treated alike."""
    shelf = AvailableCatalogue(catalogue)
    history = in_clusters(20, 0, 1)  # of three pairs, (0, 1) is outside the table
    for seed in range(40):
        made = draft(shelf, history, SlateRequest(6, 2), seed, PolicyConfig(exploration=0.1))
        plan = made.plan(None, planner=True)
        if made.context == ("c0", "c1"):
            assert made.ask() is not None and max(plan.novel[0].candidates.values()) >= 0.9
        else:
            known = [p for context, p in made.distribution if context != ("c0", "c1")]
            own = next(p for context, p in made.distribution if context == made.context)
            assert plan.novel[0].candidates
            if plan.novel[0].reason is Reason.TABLE:
                assert plan.novel[0].propensity >= 0.9 * own / sum(known) - 1e-9


# --- slots -----------------------------------------------------------------------------------------------------------


def slot(cluster: str) -> NovelSlot:
    return NovelSlot(cluster, Reason.TABLE, ("a", "b"), 0.5, {cluster: 0.5}, 0.01)


def test_near_duplicates_are_kept_apart():
    plan = Plan(3, [slot("x")], ["a"], [None, None], 0.0, 5)
    ranked = {"x": [("x1", 9.0), ("x2", 8.0)], "a": [("a1", 3.0), ("a2", 2.5), ("a3", 2.0)]}
    placed = compose(plan, ranked, {"a1": "g", "x1": "g", "a2": "h", "a3": "h"}, [("s", 0.0, "y", Kind.FAMILIAR)])
    assert [entry.item for entry in placed] == ["a1", "x2", "a2"]


def test_a_novel_slot_shows_a_near_duplicate_rather_than_nothing():
    plan = Plan(2, [slot("x")], ["a"], [None], 0.0, 5)
    placed = compose(plan, {"x": [("x1", 9.0)], "a": [("a1", 3.0)]}, {"a1": "g", "x1": "g"}, [])
    assert [entry.item for entry in placed] == ["a1", "x1"]
    plan = Plan(3, [slot("x")], ["a"], [None, None], 0.0, 5)
    placed = compose(plan, {"x": [("x1", 9.0)], "a": [("a1", 3.0), ("a2", 1.0)]}, {"a1": "g", "x1": "g"}, [])
    assert [entry.item for entry in placed] == ["a1", "x1", "a2"]


def test_holes_are_filled_and_said_not_to_be_random():
    plan = Plan(3, [slot("x"), slot("x")], [], [None], 0.05, 5)
    spare = [("x1", 0.0, "x", Kind.NOVEL), ("s1", 0.0, "y", Kind.NOVEL)]
    placed = compose(plan, {"x": [("x1", 9.0)]}, {}, spare)
    assert [(entry.item, entry.reason) for entry in placed] == [("x1", Reason.TABLE), ("s1", Reason.POPULAR)]
    assert placed[1].candidates is None and placed[1].propensity == 1


def test_familiar_slots_take_the_best_of_all_interests_or_of_the_one_drawn():
    ranked = {"a": [("a1", 5.0), ("a2", 1.0)], "b": [("b1", 4.0)]}
    placed = compose(Plan(3, [], ["a", "b", "e"], [None, "b", "e"], 0.3, 0), ranked, {}, [])
    assert [(entry.item, entry.reason) for entry in placed] == [
        ("a1", Reason.FAMILIAR),
        ("b1", Reason.EXPLORATION),
        ("a2", Reason.FAMILIAR),
    ]
    # a1: best unless exploration drew b; e has nothing, so drawing it shows the best as well.
    assert placed[0].propensity == pytest.approx(0.7 + 0.3 * 2 / 3)
    assert placed[1].propensity == pytest.approx(0.7 + 0.3 * 2 / 3), "b1 is the best of what is left"


def test_options_need_no_choices():
    assert Option(("a",), 1.0, ()).choices == () and Choice("x", Reason.TABLE).cluster == "x"


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
