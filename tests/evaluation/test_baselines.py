"""The baselines: what each learns, from whom, and that nothing is tuned on the test users."""

import json

import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.evaluation import baselines
from newfound.evaluation import moments as protocols
from newfound.evaluation.cluster_sequence import ClusterSequence, training_walks
from newfound.evaluation.end_to_end import Catalogue
from newfound.evaluation.moments import Events, Journeys
from newfound.measures import hit_rate, ranks_of
from newfound.transitions.artifact import Counts, Transitions

ORDER = list("abcd")


def events_of(walk: str, contexts: list[tuple[str, ...]]) -> Events:
    """Moments of one user at the end of a walk, as many as there are contexts."""
    count = len(walk)
    found = Journeys(
        users=["u"],
        offsets=np.array([0, count]),
        past=np.array([count - 1]),
        items=np.array([f"{letter}{at}" for at, letter in enumerate(walk)], dtype=object),
        clusters=np.array([ORDER.index(letter) for letter in walk]),
        positives=np.ones(count, dtype=bool),
        engagements=np.ones(count),
        order=ORDER,
    )
    return Events(found, np.full(len(contexts), count - 1), contexts)


COUNTS = Counts(contexts=np.array([[0, 1], [0, 1], [0, 2], [3, 1]]), labels=np.array([2, 2, 3, 0]), n=4)


class TestSimpleRivals:
    def test_popularity_counts_labels(self):
        scores = baselines.Popular(COUNTS).scores(events_of("abc", [("a", "b"), ("c", "d")]))
        assert scores.tolist() == [[1, 0, 2, 1], [1, 0, 2, 1]]

    def test_pair_frequency_knows_the_pair_and_backs_off_for_others(self):
        baseline = baselines.PairFrequency(COUNTS, context=1.0, single=1.0)
        known, unknown = baseline.scores(events_of("abc", [("a", "b"), ("d", "c")]))
        assert known.argmax() == 2 and known[2] > 0.6
        assert unknown.sum() == pytest.approx(1, abs=1e-5) and unknown[2] == unknown[3] == 0  # its own clusters

    def test_nearest_by_embedding(self, fitted):
        clusters = Clusters.load(fitted["clusters"])
        baseline = baselines.Nearest(clusters, pool="last")
        journeys = protocols.read_journeys(fitted["dataset"], clusters, ["test"])
        node = clusters.interface[7]
        scores = baseline.scores(Events(journeys, np.array([0]), [(clusters.interface[3], node)]))
        assert scores[0].argmax() == 7 and scores.max() == pytest.approx(1.0)

    def test_random_is_seeded_by_the_moment(self):
        events = events_of("abc", [("a", "b")])
        first, again = (baselines.RandomNovel(5).scores(events) for _ in range(2))
        assert (first == again).all() and (first != baselines.RandomNovel(6).scores(events)).any()


class TestTuning:
    def test_the_best_on_validation_wins_and_all_that_was_tried_is_kept(self):
        class Always:
            def __init__(self, favourite):
                self.favourite = favourite

            def scores(self, events):
                return np.eye(4)[[self.favourite] * len(events)]

        validation = events_of("abd", [("a", "b")])  # the truth is d
        baseline = baselines.tune("it", "It", Always, {"favourite": (2, 3)}, validation)
        assert baseline.chosen == {"favourite": 3}
        assert [t["mrr"] for t in baseline.tried] == [0.5, 1.0]  # c is ranked before d by index, a and b are known

    def test_without_validation_the_first_is_taken(self):
        validation = events_of("abd", [])
        baseline = baselines.tune("p", "P", lambda **c: baselines.PairFrequency(COUNTS, **c),
                            {"context": (1.0, 2.0), "single": (3.0,)}, validation)  # fmt: skip
        assert baseline.chosen == {"context": 1.0, "single": 3.0}


class TestWhatIsLearnedFrom:
    def test_training_users_positive_and_never_withheld(self, fitted):
        import pyarrow.parquet as pq

        clusters = Clusters.load(fitted["clusters"])
        transitions = Transitions.load(fitted["transitions"], clusters)
        counts = transitions.counts()
        rows = pq.read_table(fitted["transitions"] / "transitions.parquet").to_pylist()
        kept = [r for r in rows if r["split"] == "train" and r["positive"] and not r["held_out"]]
        assert len(counts.labels) == len(kept) > 0
        withheld = transitions.withheld()
        learned = {tuple(clusters.interface[c] for c in context) for context in counts.contexts}
        assert withheld and not learned & withheld

    def test_walks_are_broken_before_withheld_transitions(self, fitted):
        import pyarrow.parquet as pq

        clusters = Clusters.load(fitted["clusters"])
        transitions = Transitions.load(fitted["transitions"], clusters)
        walks = training_walks(fitted["histories"], fitted["clusters"], transitions)
        assert walks and all(len(set(walk)) == len(walk) > 1 for walk in walks)
        rows = pq.read_table(fitted["transitions"] / "transitions.parquet").to_pylist()
        withheld = [r for r in rows if r["split"] == "train" and r["held_out"] and r["positive"]]
        steps = {(a, b) for walk in walks for a, b in zip(walk, walk[1:], strict=False)}
        users = {r["user_id"] for r in rows if r["split"] == "train"}
        assert withheld and len(walks) > len(users) * 0.5
        # A withheld transition of a user may still be someone else's unwithheld step; but not all of them can be.
        after = {(clusters.index[r["context"][-1]], clusters.index[r["next"]]) for r in withheld}
        assert not after <= steps


def test_the_sequence_model_learns_a_rule():
    rng = np.random.default_rng(0)
    walks = [[int(a), int((a + 1) % 4), int((a + 2) % 4)] for a in rng.integers(0, 4, 2500)]
    model = ClusterSequence(walks, 4, 6, 0, dropout=0.1)
    scores = model.scores(events_of("bcd", [("b", "c")]))  # after b, c comes d
    assert ranks_of(scores, np.array([3]), np.array([[False, True, True, False]]))[0] == 0


def test_the_ranker_as_a_rival_pools_its_items_scores(fitted):
    from newfound.ranker import Ranker

    clusters = Clusters.load(fitted["clusters"])
    ranker = Ranker.load(fitted["ranker"])
    catalogue = Catalogue(ranker.items, clusters)
    events = protocols.novel_events(protocols.read_journeys(fitted["dataset"], clusters, ["test"]), 2)
    pools = baselines.ClusterPools(ranker, catalogue).of(events)
    scores = np.array(ranker.score_all(events.histories[:1]))[0]
    fresh = np.array([item not in set(events.histories[0]) for item in ranker.items])
    for cluster in np.flatnonzero(~events.seen[0])[:5]:
        own = np.sort(scores[(catalogue.cluster == cluster) & fresh])[::-1]
        assert pools["max"][0, cluster] == pytest.approx(own[0], rel=1e-4)
        assert pools["mean"][0, cluster] == pytest.approx(own[:5].mean(), rel=1e-4)
        assert pools["logsumexp"][0, cluster] == pytest.approx(np.log(np.exp(own).sum()), rel=1e-4)
    baseline = baselines.ranker_baseline(ranker, catalogue, events)
    assert baseline.chosen["pool"] in baselines.ClusterPools.NAMES and len(baseline.tried) == 3
    assert hit_rate(ranks_of(baseline.scorer.scores(events), events.labels, events.seen), 40) == 1


def test_rivals_are_recorded_as_json(fitted):
    clusters = Clusters.load(fitted["clusters"])
    counts = Transitions.load(fitted["transitions"], clusters).counts()
    validation = protocols.novel_events(protocols.read_journeys(fitted["dataset"], clusters, ["validation"]), 2)
    found = baselines.simple_baselines(counts, clusters, validation, 7)
    assert [r.name for r in found] == ["random_novel", "most_popular", "pair_frequency", "nearest_embedding"]
    assert json.loads(json.dumps([r.tried for r in found])) == [r.tried for r in found]
