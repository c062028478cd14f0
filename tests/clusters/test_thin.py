"""Thin clusters: none is left where there are items enough, and nothing else moves."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.clusters.thin import LEAST_ITEMS, without_thin


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_every_cluster_has_enough_items_and_their_number_stays(seed, k):
    draw = np.random.default_rng(seed)
    n = k * LEAST_ITEMS + int(draw.integers(0, 30))
    labels = np.concatenate([np.arange(k), draw.integers(0, k, n - k)])
    found = without_thin(draw.normal(size=(n, 3)).astype(np.float32), labels, draw.random(n) + 0.1)
    sizes = np.bincount(found, minlength=k)
    assert len(sizes) == k and sizes.sum() == n
    assert sizes.min() >= LEAST_ITEMS or sizes.max() < 2 * LEAST_ITEMS


def test_clusters_that_are_large_enough_stay_as_they_are():
    labels = np.repeat([0, 1, 2], 4)
    assert (without_thin(np.eye(12, dtype=np.float32), labels, np.ones(12)) == labels).all()


def test_a_lonely_item_joins_the_nearest_and_the_widest_is_halved():
    vectors = np.array([[0.0], [10.0], [10.1], [20.0], [20.1], [20.2], [25.0], [25.1], [25.2], [9.9]], dtype=np.float32)
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 2, 2, 1])
    found = without_thin(vectors, labels, np.ones(10))
    assert found[0] == found[1] == found[9] and len(set(found.tolist())) == 3
    assert found[3] != found[8]
