"""Intervals over users: coverage, pairing, and what they claim of nothing."""

import doctest
import math

import numpy as np
import pytest

from newfound.evaluation import bootstrap
from newfound.evaluation.bootstrap import Bootstrap


def test_the_doctest_holds():
    assert not doctest.testmod(bootstrap).failed


def test_the_interval_covers_the_truth_as_often_as_it_says():
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


def test_users_are_resampled_not_events():
    values = np.repeat([0.0, 1.0], 500)  # two users, of one mind each
    by_user = Bootstrap(np.repeat([0, 1], 500), resamples=500, confidence=0.95, seed=0).mean(values)
    by_event = Bootstrap(np.arange(1000), resamples=500, confidence=0.95, seed=0).mean(values)
    assert (by_user.lower, by_user.upper) == (0.0, 1.0)
    assert by_event.upper - by_event.lower < 0.1


def test_masks_ratios_and_differences():
    boot = Bootstrap(np.array([0, 0, 1, 1]), resamples=200, confidence=0.95, seed=0)
    values, base = np.array([1.0, 0.0, 1.0, np.nan]), np.array([0.5, 0.5, 0.5, 0.5])
    mask = np.array([True, True, True, False])
    assert boot.mean(values, mask).value == pytest.approx(2 / 3)
    assert boot.ratio(values, base, mask).value == pytest.approx(4 / 3)
    assert boot.difference(base, base).lower == boot.difference(base, base).upper == 0
    assert math.isnan(boot.mean(values, np.zeros(4, dtype=bool)).value)


def test_same_seed_same_interval():
    users, values = np.arange(30), np.random.default_rng(0).random(30)
    first, second = (Bootstrap(users, resamples=100, confidence=0.95, seed=5).mean(values) for _ in range(2))
    assert first == second


def test_without_events_nothing_is_claimed():
    empty = Bootstrap(np.array([], dtype=str), resamples=10, confidence=0.95, seed=0)
    assert math.isnan(empty.mean(np.array([])).value)
