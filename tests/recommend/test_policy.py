"""The policy: hand-computed cases, and the properties that it claims."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newfound.config import PolicyConfig
from newfound.recommend.policy import (
    Interest,
    Kind,
    Reason,
    context_distribution,
    draw_explored,
    familiar_probability,
    interests,
    make_past,
    novel_appetite,
    novel_positions,
    novel_quota,
    sample_context,
)

CONFIG = PolicyConfig()
NAMES = [f"c{number}" for number in range(12)]


def past_of(text: str, engagement: float = 1.0):
    """Events as letters: a capital is positive, a small letter is not, '-' is an item without a cluster."""
    clusters = [None if letter == "-" else letter.lower() for letter in text]
    positives = [letter.isupper() or letter == "-" for letter in text]
    return make_past(clusters, [engagement] * len(text), positives)


def test_interests_are_unique_positive_clusters_most_recent_last():
    assert [i.cluster for i in interests(past_of("ABbAcD-"), CONFIG)] == ["b", "a", "d"]


def test_interest_weight_is_recency_times_mean_positive_engagement():
    past = make_past(["a", "b", "a", "a"], [0.8, 0.6, 0.4, 0.0], [True, True, True, False])
    found = interests(past, PolicyConfig(recency_half_life=1.0))
    assert [(i.cluster, pytest.approx(i.weight)) for i in found] == [("b", 0.5 * 0.6), ("a", 1.0 * 0.6)]


def test_only_the_most_recent_interests_are_kept():
    found = interests(past_of("ABCDE"), PolicyConfig(recent_clusters=2))
    assert [i.cluster for i in found] == ["d", "e"]


def test_a_history_without_positive_events_has_no_interest_and_the_empty_context():
    found = interests(past_of("abc"), CONFIG)
    assert found == [] and context_distribution(found, 2) == [((), 1.0)]


def test_context_distribution_by_hand():
    found = [Interest("a", 1.0), Interest("b", 2.0), Interest("c", 3.0)]
    distribution = dict(context_distribution(found, 2))
    # P({a, b}) = 1/6 * 2/5 + 2/6 * 1/4, and so on; oldest first within the pair.
    assert distribution == pytest.approx(
        {
            ("a", "b"): 1 / 6 * 2 / 5 + 2 / 6 * 1 / 4,
            ("a", "c"): 1 / 6 * 3 / 5 + 3 / 6 * 1 / 3,
            ("b", "c"): 2 / 6 * 3 / 4 + 3 / 6 * 2 / 3,
        }
    )


@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=10), size=st.integers(1, 3))
def test_context_probabilities_sum_to_one_and_keep_the_order(weights, size):
    found = [Interest(NAMES[at], weight) for at, weight in enumerate(weights)]
    distribution = context_distribution(found, size)
    assert math.fsum(p for _, p in distribution) == pytest.approx(1)
    assert len({context for context, _ in distribution}) == len(distribution) == max(math.comb(len(weights), size), 1)
    for context, _ in distribution:
        assert list(context) == sorted(context, key=NAMES.index)


def test_sampled_contexts_follow_the_distribution_and_the_seed():
    found = [Interest(NAMES[at], weight) for at, weight in enumerate([0.2, 1.0, 0.5, 2.0])]
    distribution = context_distribution(found, 2)
    rng = np.random.default_rng(3)
    drawn = Counter(sample_context(distribution, rng) for _ in range(20_000))
    for at, (_, probability) in enumerate(distribution):
        assert drawn[at] / 20_000 == pytest.approx(probability, abs=0.012)
    again = np.random.default_rng(3)
    assert Counter(sample_context(distribution, again) for _ in range(20_000)) == drawn


def test_appetite_by_hand():
    config = PolicyConfig(appetite_prior=2, novel_share=0.25, novel_share_bounds=(0, 1), appetite_window=4)
    # Positive events: A (new), B (new), A, A, C (first seen as a dislike, so not new); the last four: 1, 0, 0, 0.
    assert novel_appetite(past_of("AcBAAC"), config) == pytest.approx((1 + 2 * 0.25) / (4 + 2))


def test_appetite_keeps_its_bounds_and_starts_at_the_configured_share():
    assert novel_appetite(past_of(""), CONFIG) == pytest.approx(CONFIG.novel_share)
    assert novel_appetite(past_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), CONFIG) == CONFIG.novel_share_bounds[1]
    assert novel_appetite(past_of("A" * 60), CONFIG) == CONFIG.novel_share_bounds[0]


@given(k=st.integers(1, 100), novel=st.one_of(st.none(), st.integers(0, 200), st.floats(0, 1)))
def test_quota_and_positions_fit_the_slate(k, novel):
    slots = novel_quota(past_of("ABC"), k, novel, CONFIG)
    assert 0 <= slots <= k
    if isinstance(novel, int):
        assert slots == min(novel, k)
    positions = novel_positions(k, slots)
    assert len(set(positions)) == slots and all(0 <= at < k for at in positions)
    if slots:
        gaps = np.diff([-1, *positions, k])
        assert gaps[1:-1].max(initial=1) - gaps[1:-1].min(initial=gaps[1:-1].max(initial=1)) <= 1


@given(slots=st.integers(0, 6), seed=st.integers(0, 99))
def test_exploration_draws_eligible_clusters_and_the_same_ones_again(slots, seed):
    drawn = draw_explored(NAMES, slots, 0.5, np.random.default_rng(seed))
    assert len(drawn) == slots and {one for one in drawn if one is not None} <= set(NAMES)
    assert drawn == draw_explored(NAMES, slots, 0.5, np.random.default_rng(seed))
    assert draw_explored(NAMES, slots, 0.0, np.random.default_rng(seed)) == [None] * slots
    assert draw_explored([], slots, 1.0, np.random.default_rng(seed)) == [None] * slots


def test_exploration_is_as_frequent_as_it_says_and_uniform():
    drawn = Counter(draw_explored(NAMES, 20_000, 0.3, np.random.default_rng(1)))
    assert drawn[None] / 20_000 == pytest.approx(0.7, abs=0.012)
    for name in NAMES:
        assert drawn[name] / 20_000 == pytest.approx(0.3 / len(NAMES), abs=0.005)


@given(
    interests_open=st.integers(1, 6),
    exhausted=st.integers(0, 4),
    explore=st.floats(0, 1),
)
def test_familiar_probabilities_sum_to_one(interests_open, exhausted, explore):
    names = NAMES[:interests_open]
    drawn_from = interests_open + exhausted
    each = [familiar_probability(name, names[0], names, drawn_from, explore) for name in names]
    assert math.fsum(each) == pytest.approx(1) and all(0 <= one <= 1 for one in each)


def test_familiar_probability_by_hand():
    assert familiar_probability("a", "a", ["a", "b"], 4, 0.2) == pytest.approx(0.8 + 0.2 * 3 / 4)
    assert familiar_probability("b", "a", ["a", "b"], 4, 0.2) == pytest.approx(0.2 / 4)


def test_codes_are_words():
    assert [str(kind) for kind in Kind] == ["familiar", "novel"] and str(Reason.TABLE) == "table"
