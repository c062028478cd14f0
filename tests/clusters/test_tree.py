"""Balanced k-means and the tree around it: invariants, balance, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.clusters.tree import balanced_kmeans, grow, loads


def blobs(sizes: list[int], seed: int = 0, spread: float = 0.05) -> np.ndarray:
    """Points around the corners of a simplex, `sizes[i]` of them around corner i."""
    draw = np.random.default_rng(seed)
    corners = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    return (corners + spread * draw.normal(size=corners.shape)).astype(np.float32)


def test_finds_what_is_there():
    vectors = blobs([20, 20, 20, 20])
    labels = balanced_kmeans(vectors, 4, np.ones(80), 0.5, seed=1)
    assert [len(set(labels[start : start + 20])) for start in range(0, 80, 20)] == [1, 1, 1, 1]
    assert len(set(labels)) == 4


def test_balance_bounds_the_loads():
    # Half of the items sit in one corner: unbalanced, it stays one cluster; balanced, it gives items up.
    vectors, load = blobs([60, 20, 20, 20]), np.ones(120)
    free = np.bincount(balanced_kmeans(vectors, 4, load, 0.0, seed=1))
    assert free.max() == 60
    for balance in (0.5, 0.8, 1.0):
        sizes = np.bincount(balanced_kmeans(vectors, 4, load, balance, seed=1))
        assert sizes.max() <= 30 / balance + 2
        assert sizes.min() >= 30 * balance * 0.8 - 2


def test_a_heavy_item_keeps_its_cluster_to_itself():
    load = np.ones(40)
    load[0] = 40
    labels = balanced_kmeans(blobs([10, 10, 10, 10]), 4, load, 0.9, seed=3)
    assert (labels == labels[0]).sum() == 1


def test_sets_out_from_an_earlier_clustering():
    vectors = blobs([10, 10, 10])
    start = np.repeat([2, 0, 1], 10)
    start[5] = -1  # a new item
    assert balanced_kmeans(vectors, 3, np.ones(30), 0.5, seed=9, start=start).tolist() == [2] * 10 + [0] * 10 + [1] * 10


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 20),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 5),
    same=st.booleans(),
)
def test_labels_have_no_gaps(n: int, k: int, balance: float, seed: int, same: bool):
    draw = np.random.default_rng(seed)
    vectors = np.zeros((n, 3), dtype=np.float32) if same else draw.normal(size=(n, 3)).astype(np.float32)
    load = draw.uniform(0.01, 1, size=n)
    labels = balanced_kmeans(vectors, k, load, balance, seed)
    assert sorted(set(labels.tolist())) == list(range(min(n, k)))
    assert np.array_equal(labels, balanced_kmeans(vectors, k, load, balance, seed))


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(2, 80), k=st.integers(1, 12), coarse=st.lists(st.integers(1, 6), max_size=2), leaf=st.integers(1, 9)
)
def test_levels_nest(n: int, k: int, coarse: list[int], leaf: int):
    draw = np.random.default_rng(n)
    vectors, load = draw.normal(size=(n, 4)).astype(np.float32), np.ones(n)
    interface = balanced_kmeans(vectors, k, load, 0.5, 0)
    labels = grow(vectors, load, interface, tuple(sorted(coarse)), leaf, 0.5, 0)
    assert np.array_equal(labels[:, -2], interface)
    for upper, lower in zip(labels.T[:-1], labels.T[1:], strict=True):
        assert len({*zip(upper.tolist(), lower.tolist(), strict=True)}) == len(set(lower.tolist()))
        assert sorted(set(lower.tolist())) == list(range(lower.max() + 1))
        assert upper.max() <= lower.max()
    assert np.bincount(labels[:, -1]).max() <= max(3 * leaf, leaf + 2)


def test_loads_mix_traffic_and_existence():
    load = loads(np.array([0, 0, 8, 2]))
    assert load.sum() == pytest.approx(1)
    assert load[0] == load[1] == pytest.approx(0.6 / 4)
    assert load[2] == pytest.approx(0.6 / 4 + 0.4 * 0.8)
    assert loads(np.zeros(5, dtype=np.int64)).tolist() == pytest.approx([0.2] * 5)
