"""A tree by balanced k-means: first the interface clusters, then coarser ones above and leaves below.

The interface level is clustered directly rather than from the top down, because it is the level that has to be good:
coarse mistakes are not inherited. Everything is NumPy in a fixed order, so equal input gives equal output.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from newfound.types import Doubles, Floats, Ints, Ints32

log = logging.getLogger("newfound.clusters")

Labels = Ints
Weights = Doubles

NEAREST: Final = 32  # centroids that an item may be moved to
STARTS: Final = 4
STARTS_UP_TO: Final = 5_000_000  # items times clusters; beyond, one start has to do
START_STEPS: Final = 6
ROUNDS: Final = 25
SETTLING: Final = 6  # last rounds, in which none is split any more
SPLIT_BALANCE: Final = 0.7
REPAIRS: Final = 10
UNDERFULL: Final = 0.8  # of the lower bound: what is a little below it is not worth a split
TRAFFIC_SHARE: Final = 0.4  # of an item's load; the rest is its mere existence
CHUNK: Final = 16384


def loads(traffic: Ints) -> Weights:
    """[n], summing to 1: what each item adds to its cluster's load.

    Traffic alone would make the head's clusters single items and the tail's huge; so part of it is the item itself.
    """
    n, total = len(traffic), int(traffic.sum())
    share = traffic / total if total else np.full(n, 1 / n)
    mixed: Weights = TRAFFIC_SHARE * share + (1 - TRAFFIC_SHARE) / n
    return mixed


def balanced_kmeans(
    vectors: Floats,
    k: int,
    load: Weights,
    balance: float,
    seed: int,
    start: Labels | None = None,
    starts: int = STARTS,
) -> Labels:
    """k-means whose clusters carry about `balance` to 1 / `balance` times the mean load, as far as items allow.

    Overfull clusters give up the items that lose least by moving to the next one with room; an underfull one is
    dissolved and the most spread cluster split instead.

    Args:
        vectors: [n, dim].
        k: clusters, fewer where there are fewer items.
        load: [n], positive.
        balance: 0 is plain k-means, 1 asks for equal loads.
        seed: of the first centroids.
        start: [n] labels to set out from, -1 for items without one; every cluster must have an item.
        starts: random ones that the best is taken of.

    Returns:
        [n] labels from 0, none of them empty.
    """
    n = len(vectors)
    k = min(k, n)
    if k <= 1:
        return np.zeros(n, dtype=np.int64)
    load = load / load.sum() * k  # the mean cluster carries 1
    limit = 1 / balance if balance > 0 else np.inf
    centroids = _first(vectors, k, load, seed, starts) if start is None else weighted_means(vectors, start, load, k)
    labels = np.full(n, -1, dtype=np.int64)
    for step in range(ROUNDS):
        before = labels
        near, distance = _nearest(vectors, centroids)
        labels = _within(near, distance, load, limit, k)
        if np.array_equal(before, labels):
            break
        if step < ROUNDS - SETTLING:
            _split_for_underfull(vectors, labels, load, k, balance, at_most=max(1, k // 20))
        centroids = weighted_means(vectors, labels, load, k, centroids)
    labels = _without_empty(vectors, labels, load, k)
    for _ in range(REPAIRS):
        if not _split_for_underfull(vectors, labels, load, k, balance, at_most=max(1, k // 4)):
            break
    return labels


def grow(
    vectors: Floats,
    load: Weights,
    interface: Labels,
    coarse_sizes: tuple[int, ...],
    leaf_items: int,
    balance: float,
    seed: int,
) -> Labels:
    """The whole tree around given interface clusters.

    Args:
        vectors: [n, dim].
        load: [n].
        interface: [n] labels from 0, none empty.
        coarse_sizes: clusters at each level above, coarsest first; a level that would not be coarser is left out.
        leaf_items: about how many items a leaf holds.
        balance: of the coarse levels' loads.
        seed: of all clusterings.

    Returns:
        [n, levels] labels, coarsest first and leaves last, unique within a level.
    """
    levels = [interface]
    for size in reversed(coarse_sizes):
        below = levels[0]
        count = int(below.max()) + 1
        if size >= count:
            log.info("a level of %d clusters above one of %d is left out", size, count)
            continue
        weight: Weights = np.bincount(below, load, count).astype(np.float64)
        centroids = weighted_means(vectors, below, load, count)
        levels.insert(0, balanced_kmeans(centroids, size, weight, balance, seed)[below])
    levels.append(_leaves(vectors, interface, leaf_items, seed))
    return np.stack(levels, axis=1)


# --- inside ---------------------------------------------------------------------------------------------------------


def _leaves(vectors: Floats, interface: Labels, leaf_items: int, seed: int) -> Labels:
    """Splits each cluster into leaves of about `leaf_items`."""
    labels = np.zeros(len(vectors), dtype=np.int64)
    order = np.argsort(interface, kind="stable")
    first = 0
    for members in np.split(order, np.cumsum(np.bincount(interface))[:-1]):
        parts = max(1, round(len(members) / leaf_items))
        found = balanced_kmeans(vectors[members], parts, np.ones(len(members)), 0.5, seed, starts=1)
        labels[members] = first + found
        first += int(found.max()) + 1
    return labels


def _first(vectors: Floats, k: int, load: Weights, seed: int, starts: int) -> Floats:
    """The best of several k-means++ starts after a few plain steps, [k, dim]."""
    best: Floats | None = None
    least = np.inf
    for attempt in range(starts if len(vectors) * k <= STARTS_UP_TO else 1):
        centroids = _spread(vectors, k, load, np.random.default_rng((seed, attempt)))
        if starts == 1:
            return centroids
        for _ in range(START_STEPS):
            near, distance = _nearest(vectors, centroids, 1)
            centroids = weighted_means(vectors, near[:, 0].astype(np.int64), load, k, centroids)
        cost = float(distance[:, 0] @ load)
        if best is None or cost < least:
            best, least = centroids, cost
    assert best is not None
    return best


def _spread(vectors: Floats, k: int, load: Weights, draw: np.random.Generator) -> Floats:
    """k-means++ (Arthur and Vassilvitskii, 2007): items drawn by load times squared distance to those drawn so far."""
    norms = (vectors**2).sum(axis=1)
    away = np.ones(len(vectors))
    chosen: list[int] = []
    for _ in range(k):
        reach = np.cumsum(load * away)
        if reach[-1] <= 0:  # all that is left is on top of what was drawn
            chosen.append(int(np.setdiff1d(np.arange(len(vectors)), chosen)[0]))
            continue
        item = int(np.searchsorted(reach, draw.random() * reach[-1], side="right").clip(0, len(vectors) - 1))
        chosen.append(item)
        squared = np.maximum(norms - 2 * vectors @ vectors[item] + norms[item], 0)
        squared[item] = 0
        away = squared if len(chosen) == 1 else np.minimum(away, squared)
    return vectors[chosen].copy()


def weighted_means(vectors: Floats, labels: Labels, load: Weights, k: int, before: Floats | None = None) -> Floats:
    """Load-weighted means [k, dim]; an empty cluster keeps the centroid that it had."""
    import scipy.sparse as sparse

    there = labels >= 0
    rows = np.flatnonzero(there)
    members = sparse.csr_matrix((load[rows], (labels[rows], rows)), shape=(k, len(vectors)))
    weight = np.asarray(members.sum(axis=1)).ravel()
    means = (members @ vectors) / np.where(weight > 0, weight, 1)[:, None]
    if before is not None:
        means[weight <= 0] = before[weight <= 0]
    return np.asarray(means, dtype=np.float32)


def _nearest(vectors: Floats, centroids: Floats, most: int = NEAREST) -> tuple[Ints32, Floats]:
    """Each item's nearest centroids, nearest first, and their squared distances: [n, m] both."""
    m = min(most, len(centroids))
    near = np.empty((len(vectors), m), dtype=np.int32)
    distance = np.empty((len(vectors), m), dtype=np.float32)
    norms = (centroids**2).sum(axis=1)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        squared = np.maximum((part**2).sum(axis=1)[:, None] - 2 * part @ centroids.T + norms, 0)
        found = np.argpartition(squared, m - 1, axis=1)[:, :m]
        found.sort(axis=1)  # equal distances go to the lower cluster
        order = np.argsort(np.take_along_axis(squared, found, axis=1), axis=1, kind="stable")
        near[start : start + CHUNK] = np.take_along_axis(found, order, axis=1)
        distance[start : start + CHUNK] = np.take_along_axis(squared, near[start : start + CHUNK], axis=1)
    return near, distance


def _within(near: Ints32, distance: Floats, load: Weights, limit: float, k: int) -> Labels:
    """Labels by the nearest centroid, no cluster above `limit` unless its items have nowhere to go."""
    labels = near[:, 0].astype(np.int64)
    if not np.isfinite(limit):
        return labels
    full = limit + load.mean() / 2
    carried = np.bincount(labels, load, k)
    for _ in range(2 * k):  # a pass moves at least one item or ends
        moved = False
        for cluster in np.flatnonzero(carried > full):
            members = np.flatnonzero(labels == cluster)
            # Half over is rounding; an item that fills a cluster alone stays, and the others leave it.
            open_to = (near[members] != cluster) & (load[members] <= limit)[:, None]
            open_to &= carried[near[members]] + load[members, None] / 2 <= limit
            there = open_to.any(axis=1)
            members, open_to = members[there], open_to[there]
            if not len(members):
                continue
            at_home = np.where(near[members] == cluster, distance[members], np.inf).min(axis=1)
            best = np.where(open_to, distance[members], np.inf).argmin(axis=1)
            loss = distance[members, best] - np.where(np.isfinite(at_home), at_home, 0)
            for row in np.lexsort((members, loss / load[members])):
                item, to = members[row], near[members[row], best[row]]
                if carried[cluster] <= full:
                    break
                if carried[to] + load[item] / 2 > limit:
                    continue
                labels[item] = to
                carried[cluster] -= load[item]
                carried[to] += load[item]
                moved = True
        if not moved:
            break
    return labels


def _split_for_underfull(vectors: Floats, labels: Labels, load: Weights, k: int, balance: float, at_most: int) -> bool:
    """Dissolves underfull clusters into their neighbours and splits the most spread ones instead, in place.

    A head item that nothing else is like stays on its own: no half may carry less than what is dissolved for it.

    Returns:
        Whether anything changed.
    """
    carried, sizes = np.bincount(labels, load, k), np.bincount(labels, minlength=k)
    least = UNDERFULL * balance
    under = [int(cluster) for cluster in np.argsort(carried, kind="stable") if carried[cluster] < least]
    if not under:
        return False
    means = weighted_means(vectors, labels, load, k)
    spread = np.bincount(labels, ((vectors - means[labels]) ** 2).sum(axis=1) * load, k)
    wide = [
        int(cluster)
        for cluster in np.argsort(-spread, kind="stable")
        if carried[cluster] >= 2 * least and sizes[cluster] > 1
    ]
    homeless = []
    for low, split in zip(under[:at_most], wide, strict=False):
        members, lonely = np.flatnonzero(labels == split), np.flatnonzero(labels == low)
        half = _halves(vectors[members], load[members])
        if np.bincount(half, load[members]).min() <= carried[low]:
            continue
        labels[members[half == 1]] = low
        means[[split, low]] = weighted_means(vectors[members], half, load[members], 2)
        homeless.append(lonely)
    if not homeless:
        return False
    items = np.concatenate(homeless)
    away = ((vectors[items] ** 2).sum(axis=1)[:, None] - 2 * vectors[items] @ means.T) + (means**2).sum(axis=1)
    labels[items] = -1
    there = labels >= 0
    carried = np.bincount(labels[there], load[there], k)
    away[:, carried == 0] = np.inf
    limit = 1 / balance
    for row in np.lexsort((items, away.min(axis=1))):
        item = items[row]
        fits = carried + load[item] / 2 <= limit
        to = np.where(fits, away[row], np.inf).argmin() if fits.any() else away[row].argmin()
        labels[item] = to
        carried[to] += load[item]
    return True


def _halves(vectors: Floats, load: Weights) -> Labels:
    """Two clusters of about the same load [n]."""
    load = load / load.sum() * 2
    centroids = _spread(vectors, 2, load, np.random.default_rng(0))
    for _ in range(START_STEPS):
        near, distance = _nearest(vectors, centroids)
        labels = _within(near, distance, load, 1 / SPLIT_BALANCE, 2)
        centroids = weighted_means(vectors, labels, load, 2, centroids)
    return _without_empty(vectors, labels, load, 2)


def _without_empty(vectors: Floats, labels: Labels, load: Weights, k: int) -> Labels:
    """Labels from 0 without gaps: an empty cluster takes the farthest item of the most loaded one that can spare it."""
    sizes = np.bincount(labels, minlength=k)
    for cluster in np.flatnonzero(sizes == 0):
        carried = np.where(sizes > 1, np.bincount(labels, load, k), -np.inf)
        members = np.flatnonzero(labels == carried.argmax())
        centre = np.average(vectors[members], axis=0, weights=load[members])
        labels[members[((vectors[members] - centre) ** 2).sum(axis=1).argmax()]] = cluster
        sizes = np.bincount(labels, minlength=k)
    return labels
