"""The nested logit's fit: derivatives against differences, coefficients that made the choices, honest intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from newfound.recommend.fit import Moments, fit_nested_logit, log_likelihoods
from newfound.recommend.nested_logit import Coefficients, inclusive_values, joint_utilities, pooled

BOUNDS = np.array([0, 4, 9, 10, 16, 20])
TRUE = Coefficients(items={"ranker": 0.8, "text": 1.5}, clusters={"planner": 0.7}, dissimilarity=0.6)


def moments(count: int, seed: int, truth: Coefficients = TRUE) -> list[Moments]:
    """Choices drawn from the model itself."""
    rng = np.random.default_rng(seed)
    batches = []
    for start in range(0, count, 100):
        size = min(100, count - start)
        items = {name: rng.normal(size=(size, BOUNDS[-1])).astype(np.float32) for name in ("ranker", "text")}
        clusters = {"planner": rng.normal(size=(size, len(BOUNDS) - 1)).astype(np.float32)}
        allowed = rng.random((size, BOUNDS[-1])) < 0.8
        allowed[:, 4:9] &= rng.random((size, 1)) < 0.7  # whole nests are closed to some
        targets = []
        for row in range(size):
            utility = sum(np.float32(w) * items[name][row] for name, w in truth.items.items())
            offsets = truth.offsets({name: term[row] for name, term in clusters.items()})
            joint = joint_utilities(np.where(allowed[row], utility, -np.inf), BOUNDS, offsets, truth.dissimilarity)
            joint = np.where(allowed[row], joint, -np.inf).astype(np.float64)
            chance = np.exp(joint - joint.max())
            targets.append(rng.choice(len(joint), p=chance / chance.sum()))
        users = (start + np.arange(size)) // 2
        batches.append(Moments(items, clusters, allowed, np.array(targets), users))
    return batches


def test_what_made_the_choices_is_found_within_its_intervals():
    stored = moments(4000, 1)
    found = fit_nested_logit(lambda: stored, BOUNDS, ("ranker", "text"), ("planner",))
    truth = {**TRUE.items, **TRUE.clusters, "dissimilarity": TRUE.dissimilarity}
    for name, value in truth.items():
        low, high = found.intervals[name]
        assert low - 0.02 < value < high + 0.02 and high - low < 0.4, name
    assert found.moments == 4000 and found.users == 2000
    assert found.log_likelihood == pytest.approx(log_likelihoods(stored, BOUNDS, found.coefficients).mean(), abs=1e-6)
    assert found.log_likelihood > log_likelihoods(stored, BOUNDS, TRUE).mean() - 1e-3, "a maximum, but for its prior"


def test_probabilities_of_all_items_sum_to_one():
    (batch,) = moments(1, 3)
    total = 0.0
    for target in np.flatnonzero(batch.allowed[0]):
        one = Moments(batch.items, batch.clusters, batch.allowed, np.array([target]), batch.users)
        total += float(np.exp(log_likelihoods([one], BOUNDS, TRUE))[0])
    assert total == pytest.approx(1.0, abs=1e-5)


def test_intervals_cover_as_often_as_they_say():
    """Of twenty fits a 90 % interval may miss the truth a few times, and not a third of them."""
    inside = 0
    for seed in range(20):
        stored = moments(300, 100 + seed)
        low, high = fit_nested_logit(lambda s=stored: s, BOUNDS, ("ranker", "text"), ("planner",), 0.9).intervals[
            "text"
        ]
        inside += low < TRUE.items["text"] < high
    assert inside >= 15


def test_a_term_that_says_nothing_gets_no_weight_and_two_equal_ones_share():
    stored = [_with(batch, np.zeros_like(batch.items["ranker"]), batch.items["text"]) for batch in moments(2000, 5)]
    names = ("ranker", "text", "nothing", "again")
    found = fit_nested_logit(lambda: stored, BOUNDS, names, ("planner",)).coefficients
    assert found.items["nothing"] == 0
    assert found.items["text"] == pytest.approx(found.items["again"], abs=1e-3)
    assert found.items["text"] + found.items["again"] == pytest.approx(1.5, abs=0.25)


def _with(batch: Moments, nothing: np.ndarray, again: np.ndarray) -> Moments:
    items = {**batch.items, "nothing": nothing, "again": again}
    return Moments(items, batch.clusters, batch.allowed, batch.targets, batch.users)


def test_no_choice_at_all_gives_what_it_set_out_with():
    def none() -> Iterator[Moments]:
        return iter(())

    found = fit_nested_logit(none, BOUNDS, ("ranker",), ())
    assert found.moments == 0 and found.coefficients.items == {"ranker": 1.0}


def test_inclusive_values_by_hand():
    utilities = np.array([1.0, 2.0, -np.inf, 0.0, -np.inf], dtype=np.float32)
    found = inclusive_values(utilities, np.array([0, 2, 4, 5]))
    assert found[:2] == pytest.approx([np.log(np.exp(1) + np.exp(2)), 0.0]) and found[2] == -np.inf


def test_pooling_is_the_weighted_mean_of_log_probabilities():
    rows = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]))
    allowed = np.array([True, False, True])
    first = np.log(np.array([0.5, 0.2]) / 0.7)
    second = np.log(np.array([0.2, 0.6]) / 0.8)
    expected = 0.75 * first + 0.25 * second
    np.testing.assert_allclose(pooled(rows, [3.0, 1.0], allowed), [expected[0], 0.0, expected[1]], rtol=1e-6)
