"""The plain forms, by hand."""

import doctest
import math

import numpy as np
import pytest

from tests.reference import measures

DAY = 86_400_000


def test_the_doctests_hold():
    found = doctest.testmod(measures)
    assert found.attempted > 5 and not found.failed


def test_novelty_and_positive_rate():
    novel = np.array([True, True, False, False, False])
    liked = np.array([True, False, True, True, False])
    assert measures.novelty_ratio(novel) == 0.4
    assert measures.positive_rate(liked, novel) == 0.5
    assert math.isnan(measures.positive_rate(liked, np.zeros(5, dtype=bool)))


def test_uci_counts_unique_clusters_in_the_last_seven_days_only():
    users = np.array(["a", "a", "a", "a", "b", "b", "c"])
    clusters = np.array(["x", "x", "y", "z", "x", "y", "x"])
    times = np.array([9, 10, 11, 1, 9, 20, 10]) * DAY  # a's z is too old, b's y is yet to come
    assert measures.uci(users, clusters, times, [1, 2, 3], end_ms=12 * DAY) == [3, 1, 0]
    assert measures.uci(users, clusters, times, [1], end_ms=100 * DAY) == [0]


def test_ueuc_and_retained_interest():
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


def test_suppression_compares_exposure_with_appeal():
    novel = np.array([1] * 10 + [0] * 10, dtype=bool)
    shown = np.array([1] * 3 + [0] * 7 + [1] * 6 + [0] * 4, dtype=bool)
    liked = np.array([1, 1, 0] + [0] * 7 + [1, 1, 0, 0, 0, 0] + [0] * 4, dtype=bool)
    found = measures.suppression_ratio(novel, shown, liked)
    assert (found.exposure, found.appeal, found.ratio) == pytest.approx((0.5, 2.0, 0.25))
    assert math.isnan(measures.suppression_ratio(novel[:10], shown[:10], liked[:10]).ratio)
