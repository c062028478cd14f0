"""Every measure against a case worked out by hand, and what it claims in general as a property."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound import measures
from tests.reference.measures import rank_by_sorting


def test_every_public_measure_has_a_doctest_that_holds():
    assert doctest.testmod(measures).failed == 0
    public = [n for n, f in vars(measures).items() if callable(f) and getattr(f, "__module__", "") == measures.__name__]
    functions = [n for n in public if not n.startswith("_") and n[0].islower()]
    assert functions and all(">>>" in getattr(measures, name).__doc__ for name in functions)


class TestRanks:
    def test_the_history_is_taken_out_and_ties_go_by_index(self):
        scores = np.array([[3.0, 2.0, 2.0, 1.0]])
        assert measures.ranks_of(scores, np.array([1]))[0] == 1
        assert measures.ranks_of(scores, np.array([2]))[0] == 2
        assert measures.ranks_of(scores, np.array([2]), np.array([[True, True, False, False]]))[0] == 0

    def test_a_constant_scorer_has_the_recall_of_chance(self):
        labels = np.arange(1000) % 20
        ranks = measures.ranks_of(np.zeros((1000, 20)), labels)
        assert measures.hit_rate(ranks, 5) == 5 / 20

    def test_an_answer_that_cannot_be_given_ranks_after_everything(self):
        scores = np.array([[3.0, -np.inf, np.nan]])
        assert measures.ranks_of(np.repeat(scores, 3, 0), np.array([1, 2, -1])).tolist() == [3, 3, 3]
        assert measures.ranks_of(scores, np.array([0]), np.array([[True, False, False]]))[0] == 3

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_equals_sorting(self, data):
        n = data.draw(st.integers(2, 12))
        scores = np.array([data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))], dtype=float)
        excluded = np.array([data.draw(st.lists(st.booleans(), min_size=n, max_size=n))])
        label = data.draw(st.integers(0, n - 1))
        expected = rank_by_sorting(scores[0], label, excluded[0])
        assert measures.ranks_of(scores, np.array([label]), excluded)[0] == expected


class TestRecall:
    def test_by_hand(self):
        ranks = np.array([0, 1, 9, 10])
        assert measures.hit_rate(ranks, 1) == 0.25
        assert measures.hit_rate(ranks, 10) == 0.75
        assert measures.ndcg(ranks, 10) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
        assert measures.mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
        assert measures.mean_reciprocal_rank(ranks, answers=10) == pytest.approx((1 + 1 / 2 + 1 / 10) / 4)

    def test_of_nothing_is_not_a_number(self):
        assert math.isnan(measures.hit_rate(np.array([], dtype=int), 1))

    def test_chance_by_hand(self):
        assert measures.chance(10, 60, np.array([40, 55, 60])).tolist() == [0.5, 1.0, 1.0]

    def test_chance_is_what_a_blind_draw_reaches(self):
        rng = np.random.default_rng(0)
        seen = np.zeros((20_000, 30), dtype=bool)
        seen[:, :12] = True
        ranks = measures.ranks_of(rng.random(seen.shape), np.full(len(seen), 20), seen)
        assert measures.hit_rate(ranks, 3) == pytest.approx(measures.chance(3, 30, np.array([12]))[0], abs=0.01)

    def test_macro_recall_gives_rare_labels_the_weight_of_frequent_ones(self):
        frequency = np.arange(20)  # two labels a decile
        labels = np.array([19, 19, 19, 19, 0, 1])
        ranks = np.array([0, 0, 0, 0, 5, 0])
        deciles = measures.recall_by_decile(ranks, labels, frequency, 1)
        assert deciles[9] == 1.0 and deciles[0] == 0.5 and np.isnan(deciles[1:9]).all()
        assert measures.macro_recall(ranks, labels, frequency, 1) == 0.75
        assert measures.hit_rate(ranks, 1) == pytest.approx(5 / 6)


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
