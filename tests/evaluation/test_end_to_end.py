"""Items in clusters in slates: by hand, with scorers whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import load_interactions
from newfound.evaluation import end_to_end as composed
from newfound.evaluation.end_to_end import Catalogue, Shelves
from newfound.evaluation.moments import Events, Journeys
from newfound.evaluation.scorers import PlannerScorer, TableScorer
from newfound.table import Successor

ORDER = ["a", "b", "c"]
ITEMS = ["a0", "a1", "b0", "b1", "b2", "c0", "x"]  # x is in no cluster


class Grouped:
    """What `Catalogue` reads of clusters."""

    interface = ORDER
    index = {cluster: at for at, cluster in enumerate(ORDER)}
    cluster_of = {item: item[0] for item in ITEMS if item != "x"}


class Fixed:
    """An item policy with one and the same opinion."""

    items = ITEMS

    def __init__(self, scores):
        self._scores = np.array(scores, dtype=np.float32)

    def score_all(self, histories):
        return np.tile(self._scores, (len(histories), 1))


CATALOGUE = Catalogue(ITEMS, Grouped())
RANKER = Fixed([9, 8, 7, 6, 5, 4, 3])


def moments(*walks: list[str]) -> Events:
    """One moment a walk: its last item, after all the others; contexts are of no matter."""
    items = [item for walk in walks for item in walk]
    offsets = np.cumsum([0, *(len(walk) for walk in walks)])
    found = Journeys(
        users=[f"u{user}" for user in range(len(walks))],
        offsets=offsets,
        past=np.array([len(walk) - 1 for walk in walks]),
        items=np.array(items, dtype=object),
        clusters=np.array([ORDER.index(item[0]) if item[0] in ORDER else -1 for item in items]),
        positives=np.ones(len(items), dtype=bool),
        engagements=np.ones(len(items)),
        order=ORDER,
    )
    return Events(found, offsets[1:] - 1, [("a", "b")] * len(walks))


class TestRanks:
    def test_every_item_is_ranked_and_consumed_ones_are_not(self):
        events = moments(["a0", "b1"], ["b1", "a0", "c0"])
        assert composed.item_ranks(RANKER, CATALOGUE, events).tolist() == [2, 3]  # a1 b0 [b1]; a1 b0 b2 [c0]

    def test_an_item_that_the_ranker_does_not_know_is_never_hit(self):
        assert composed.item_ranks(RANKER, CATALOGUE, moments(["a0", "b9"])).tolist() == [len(ITEMS)]

    def test_inside_the_true_cluster(self):
        ranks, offered = composed.item_ranks_in_cluster(RANKER, CATALOGUE, moments(["b0", "b2"], ["a0", "c0"]))
        assert ranks.tolist() == [1, 0] and offered.tolist() == [2, 1]

    def test_baselines_by_hand(self, tmp_path):
        walks = {"u": ["a0", "b0", "a0", "b0", "a0", "c0"], "v": ["a0", "c0", "b1"], "w": ["b0", "a0"]}
        rows = [(user, item, at) for user, walk in walks.items() for at, item in enumerate(walk)]
        table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
        table.to_parquet(tmp_path / "log.parquet")
        config = DataConfig(loader="files", interactions=str(tmp_path / "log.parquet"), min_user_events=1)
        load_interactions(config, SplitConfig(), 1, tmp_path / "dataset")
        # the last of each walk lies after the cut
        popular = composed.Popularity(tmp_path / "dataset", ITEMS)
        assert popular.score_all([["a0"]])[0].tolist() == [4, 0, 3, 0, 0, 1, 0]
        markov = composed.Markov(tmp_path / "dataset", popular).score_all([["a0"], ["b0"], []])
        assert markov[0].argsort()[::-1][:2].tolist() == [2, 5]  # after a0: b0 twice, c0 once
        assert markov[1].argmax() == 0  # after b0 came a0
        assert markov[2].argmax() == 0  # nothing to go by: popularity


class TestSlates:
    def test_clusters_take_turns_and_thin_ones_are_passed(self):
        shelves = Shelves(np.array([9, 8, 7, 6, -np.inf, 4, 3]), CATALOGUE)
        assert [ITEMS[c] for c in shelves.slate([1, 2, 0, -1], 5)] == ["b0", "c0", "a0", "b1", "a1"]
        assert [ITEMS[c] for c in shelves.slate([2], 3)] == ["c0"]
        assert shelves.slate([-1], 3) == []

    def test_best_clusters_are_never_consumed_ones(self):
        scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, -np.inf]])
        seen = np.array([[True, False, False], [False, False, False]])
        assert composed.best_clusters(scores, seen, 4).tolist() == [[1, 2, -1, -1], [0, 1, -1, -1]]

    def test_end_to_end_positions(self):
        events = moments(["a0", "b1"], ["a0", "c0"])
        chosen = {"right": np.array([[1, 2], [2, 1]]), "wrong": np.array([[2, -1], [1, -1]])}
        ranks = composed.end_to_end_ranks(RANKER, CATALOGUE, events, chosen, 3)
        assert ranks["right"].tolist() == [2, 0]  # b0 c0 [b1]; [c0] b0 b1
        assert ranks["wrong"].tolist() == [3, 3]
        assert ranks["ranker_direct"].tolist() == [1, 3]  # b0 [b1] b2 c0, of b and c alone

    def test_quota_curve_trades_familiar_for_novel(self):
        events = moments(["a0", "b0"], ["a0", "a1"])  # a new cluster's item; a familiar one
        found, novel = composed.quota_curve(RANKER, CATALOGUE, events, np.array([[1, 2], [1, 2]]), 2)
        assert novel.tolist() == [True, False]
        assert found.tolist() == [[0, 1], [1, 1], [1, 0]]  # by quota 0, 1, 2


class TestOurs:
    def test_the_planner_is_asked_once_for_each_context(self):
        class Asked:
            def log_probs(self, contexts):
                assert contexts == [("a", "b"), ("b", "c")]
                return np.array([[-np.inf, -np.inf, 0.0], [-0.1, -np.inf, -np.inf]], dtype=np.float32)

        events = moments(["a0", "b0"], ["a0", "b0"]).with_contexts([("b", "c"), ("a", "b")])
        events = events.with_contexts([("a", "b"), ("b", "c")])
        assert PlannerScorer(Asked()).scores(events).argmax(axis=1).tolist() == [2, 0]

    def test_the_table_answers_and_what_it_leaves_open_comes_after(self):
        class Table:
            def successors(self, context):
                return [Successor("c", -0.1, "planner")] if context == ("a", "b") else None

        class Backup:
            def scores(self, events):
                return np.array([[5.0, 7.0, 9.0]] * len(events))

        events = moments(["a0", "b0"])
        alone = TableScorer(Table(), ORDER)
        assert alone.scores(events)[0] == pytest.approx([-np.inf, -np.inf, -0.1])
        assert alone.raw([("a", "b"), ("b", "a")], 2).tolist() == [[2, -1], [-1, -1]]
        backed = TableScorer(Table(), ORDER, Backup())
        assert np.argsort(-backed.scores(events)[0]).tolist() == [2, 1, 0]
        assert np.argsort(-backed.scores(events.with_contexts([("b", "c")]))[0]).tolist() == [2, 1, 0]
        asked: list[list[tuple[str, ...]]] = []

        def live(contexts):
            asked.append(list(contexts))
            return [[("a", -0.5)] for _ in contexts]

        served = TableScorer(Table(), ORDER, Backup(), live)
        assert np.argsort(-served.scores(events.with_contexts([("b", "c")]))[0]).tolist() == [0, 2, 1]
        assert served.raw([("a", "b"), ("b", "c"), ("c", "a")], 1).tolist() == [[2], [0], [0]]
        assert asked == [[("b", "c")], [("c", "a")]]  # what the table lacks, once
