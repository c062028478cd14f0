"""Every measure against a case worked out by hand, and what it claims in general as a property."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound import measures
from newfound.evaluation import bootstrap
from newfound.evaluation.bootstrap import Bootstrap

DAY = 86_400_000


@pytest.mark.parametrize("module", [measures, bootstrap])
def test_every_public_measure_has_a_doctest_that_holds(module):
    result = doctest.testmod(module)
    assert result.failed == 0
    if module is measures:
        public = [
            n for n, f in vars(measures).items() if callable(f) and getattr(f, "__module__", "") == measures.__name__
        ]
        functions = [n for n in public if not n.startswith("_") and n[0].islower()]
        assert all(">>>" in getattr(measures, name).__doc__ for name in functions)


class TestRanks:
    def test_the_history_is_taken_out_and_ties_go_by_index(self):
        scores = np.array([[3.0, 2.0, 2.0, 1.0]])
        assert measures.ranks_of(scores, np.array([1]))[0] == 1
        assert measures.ranks_of(scores, np.array([2]))[0] == 2
        assert measures.ranks_of(scores, np.array([2]), np.array([[True, True, False, False]]))[0] == 0

    def test_an_answer_that_cannot_be_given_ranks_after_everything(self):
        scores = np.array([[3.0, -np.inf, np.nan]])
        assert measures.ranks_of(np.repeat(scores, 2, 0), np.array([1, 2])).tolist() == [3, 3]
        assert measures.ranks_of(scores, np.array([0]), np.array([[True, False, False]]))[0] == 3

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_equals_sorting(self, data):
        n = data.draw(st.integers(2, 12))
        scores = np.array([data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))], dtype=float)
        excluded = np.array([data.draw(st.lists(st.booleans(), min_size=n, max_size=n))])
        label = data.draw(st.integers(0, n - 1))
        order = [i for i in sorted(range(n), key=lambda i: (-scores[0, i], i)) if not excluded[0, i]]
        expected = order.index(label) if label in order else n
        assert measures.ranks_of(scores, np.array([label]), excluded)[0] == expected


class TestRecall:
    def test_by_hand(self):
        ranks = np.array([0, 1, 9, 10])
        assert measures.novel_recall(ranks, 1) == 0.25
        assert measures.novel_recall(ranks, 10) == measures.hit_rate(ranks, 10) == 0.75
        assert measures.ndcg(ranks, 10) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
        assert measures.mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
        assert measures.mean_reciprocal_rank(ranks, answers=10) == pytest.approx((1 + 1 / 2 + 1 / 10) / 4)

    def test_of_nothing_is_not_a_number(self):
        assert math.isnan(measures.novel_recall(np.array([], dtype=int), 1))

    def test_chance_by_hand(self):
        assert measures.chance(10, 60, np.array([40, 55, 60])).tolist() == [0.5, 1.0, 1.0]

    def test_chance_is_what_a_blind_draw_reaches(self):
        rng = np.random.default_rng(0)
        seen = np.zeros((20_000, 30), dtype=bool)
        seen[:, :12] = True
        ranks = measures.ranks_of(rng.random(seen.shape), np.full(len(seen), 20), seen)
        assert measures.novel_recall(ranks, 3) == pytest.approx(measures.chance(3, 30, np.array([12]))[0], abs=0.01)

    def test_macro_recall_gives_rare_labels_the_weight_of_frequent_ones(self):
        frequency = np.arange(20)  # two labels a decile
        labels = np.array([19, 19, 19, 19, 0, 1])
        ranks = np.array([0, 0, 0, 0, 5, 0])
        deciles = measures.recall_by_decile(ranks, labels, frequency, 1)
        assert deciles[9] == 1.0 and deciles[0] == 0.5 and np.isnan(deciles[1:9]).all()
        assert measures.macro_recall(ranks, labels, frequency, 1) == 0.75
        assert measures.novel_recall(ranks, 1) == pytest.approx(5 / 6)


class TestSpread:
    def test_gini_and_entropy_by_hand(self):
        # pairwise definition: sum |a - b| / (2 n^2 mean) over 1, 2, 3 is 8 / (2 * 9 * 2)
        assert measures.gini(np.array([3, 1, 2])) == pytest.approx(8 / 36)
        expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(3)
        assert measures.normalised_entropy(np.array([1, 3, 0])) == pytest.approx(expected)
        assert measures.normalised_entropy(np.array([4, 0])) == 0.0
        assert math.isnan(measures.gini(np.zeros(3))) and math.isnan(measures.normalised_entropy(np.zeros(3)))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(lambda c: sum(c) > 0))
    def test_both_are_bounded_and_blind_to_order_and_scale(self, counts):
        array = np.array(counts)
        assert -1e-9 <= measures.gini(array) < 1
        assert -1e-9 <= measures.normalised_entropy(array) <= 1 + 1e-9
        assert measures.gini(array[::-1] * 3) == pytest.approx(measures.gini(array))
        assert measures.normalised_entropy(array[::-1] * 3) == pytest.approx(measures.normalised_entropy(array))

    def test_coverage_and_leak_by_hand(self):
        answers = np.array([[0, 1, -1], [1, 2, 3]])
        seen = np.array([[True, False, False, False, False], [False, True, True, False, False]])
        assert measures.label_coverage(answers, 5) == 0.8
        assert measures.answer_counts(answers, 5).tolist() == [1, 2, 1, 1, 0]
        assert measures.leak(answers, seen) == pytest.approx(3 / 5)


class TestGrounding:
    def test_by_hand(self):
        returned = [["a", "b", "x"], ["c"], []]
        members = [{"a", "b"}, {"c", "d", "e"}, set()]
        assert measures.grounding_precision(returned, members) == 0.75
        # wanted at k = 2: 2 and 2, and 2 of the empty cluster, which only a back-off could have supplied
        assert measures.grounding_recall(returned, members, 2) == 0.5

    def test_perfect_grounding_is_one(self):
        assert measures.grounding_precision([["a"]], [{"a"}]) == measures.grounding_recall([["a"]], [{"a"}], 5) == 1


class TestOnline:
    def test_novelty_and_positive_rate(self):
        novel = np.array([True, True, False, False, False])
        liked = np.array([True, False, True, True, False])
        assert measures.novelty_ratio(novel) == 0.4
        assert measures.positive_rate(liked, novel) == 0.5
        assert math.isnan(measures.positive_rate(liked, np.zeros(5, dtype=bool)))

    def test_uci_counts_unique_clusters_in_the_last_seven_days_only(self):
        users = np.array(["a", "a", "a", "a", "b", "b", "c"])
        clusters = np.array(["x", "x", "y", "z", "x", "y", "x"])
        times = np.array([9, 10, 11, 1, 9, 20, 10]) * DAY  # a's z is too old, b's y is yet to come
        assert measures.uci(users, clusters, times, [1, 2, 3], end_ms=12 * DAY) == [3, 1, 0]
        assert measures.uci(users, clusters, times, [1], end_ms=100 * DAY) == [0]

    def test_ueuc_and_retained_interest(self):
        users = np.array(["a", "a", "a", "b", "b"])
        clusters = np.array([1, 1, 2, 1, 1])
        times = np.array([0, 10, 0, 0, 1]) * DAY
        positive = np.array([True, True, True, True, True])
        assert measures.ueuc(users, clusters, positive) == 3
        assert measures.retained_interest(users, clusters, times, positive, days=7) == pytest.approx(1 / 3)
        positive[1] = False  # seen again, but not enjoyed
        assert measures.ueuc(users, clusters, positive) == 3
        assert measures.retained_interest(users, clusters, times, positive, days=7) == 0
        # a single event is never its own return, even where no gap at all is asked for
        assert measures.retained_interest(users[2:3], clusters[2:3], times[2:3], positive[2:3], days=0) == 0

    def test_successor_jaccard(self):
        ours = np.array([[1, 2, 3], [4, -1, -1], [-1, -1, -1]])
        theirs = np.array([[3, 2, 9], [5, -1, -1], [-1, -1, -1]])
        assert measures.successor_jaccard(ours, theirs) == pytest.approx((0.5 + 0 + 1) / 3)

    def test_suppression_compares_exposure_with_appeal(self):
        novel = np.array([1] * 10 + [0] * 10, dtype=bool)
        shown = np.array([1] * 3 + [0] * 7 + [1] * 6 + [0] * 4, dtype=bool)
        liked = np.array([1, 1, 0] + [0] * 7 + [1, 1, 0, 0, 0, 0] + [0] * 4, dtype=bool)
        found = measures.suppression_ratio(novel, shown, liked)
        assert (found.exposure, found.appeal, found.ratio) == pytest.approx((0.5, 2.0, 0.25))
        assert math.isnan(measures.suppression_ratio(novel[:10], shown[:10], liked[:10]).ratio)


class TestBootstrap:
    def test_the_interval_covers_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(3)
        covered = 0
        for trial in range(200):
            rate = rng.beta(2, 6, size=80)  # users differ
            users = np.repeat(np.arange(80), 5)
            values = (rng.random(400) < rate[users]).astype(float)
            interval = Bootstrap(users, resamples=300, confidence=0.9, seed=trial).mean(values)
            assert interval.lower <= interval.value <= interval.upper
            covered += interval.lower <= 0.25 <= interval.upper
        assert 0.83 <= covered / 200 <= 0.96

    def test_users_are_resampled_not_events(self):
        values = np.repeat([0.0, 1.0], 500)  # two users, of one mind each
        by_user = Bootstrap(np.repeat([0, 1], 500), resamples=500, confidence=0.95, seed=0).mean(values)
        by_event = Bootstrap(np.arange(1000), resamples=500, confidence=0.95, seed=0).mean(values)
        assert (by_user.lower, by_user.upper) == (0.0, 1.0)
        assert by_event.upper - by_event.lower < 0.1

    def test_masks_ratios_and_differences(self):
        boot = Bootstrap(np.array([0, 0, 1, 1]), resamples=200, confidence=0.95, seed=0)
        values, base = np.array([1.0, 0.0, 1.0, np.nan]), np.array([0.5, 0.5, 0.5, 0.5])
        mask = np.array([True, True, True, False])
        assert boot.mean(values, mask).value == pytest.approx(2 / 3)
        assert boot.ratio(values, base, mask).value == pytest.approx(4 / 3)
        assert boot.difference(base, base).lower == boot.difference(base, base).upper == 0
        assert math.isnan(boot.mean(values, np.zeros(4, dtype=bool)).value)

    def test_same_seed_same_interval(self):
        users, values = np.arange(30), np.random.default_rng(0).random(30)
        first, second = (Bootstrap(users, resamples=100, confidence=0.95, seed=5).mean(values) for _ in range(2))
        assert first == second

    def test_without_events_nothing_is_claimed(self):
        empty = Bootstrap(np.array([], dtype=str), resamples=10, confidence=0.95, seed=0)
        assert math.isnan(empty.mean(np.array([])).value)
