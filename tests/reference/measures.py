"""Ranks and measures of feedback in their plainest form, for the fast ones and the monitoring's SQL to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[Any]
Bools = NDArray[np.bool_]


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def rank_by_sorting(scores: Array, label: int, excluded: Bools) -> int:
    """Position of the label among the answers that are not excluded, best first, equal ones by index.

    >>> rank_by_sorting(np.array([1.0, 3.0, 1.0]), 2, np.array([False, True, False]))
    1
    """
    order = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if not excluded[i]]
    return order.index(label) if label in order else len(scores)


def novelty_ratio(novel: Bools) -> float:
    """Impressions from never-consumed clusters / impressions.

    >>> novelty_ratio(np.array([True, False, False, False]))
    0.25
    """
    return _mean(np.asarray(novel, dtype=np.float64))


def positive_rate(positive: Bools, among: Bools) -> float:
    """Share of the chosen impressions that got positive feedback; beside the novelty ratio, `among` are the novel ones.

    >>> positive_rate(np.array([True, True, False]), np.array([False, True, True]))
    0.5
    """
    return _mean(np.asarray(positive, dtype=np.float64)[np.asarray(among, dtype=bool)])


def uci(
    users: Array, clusters: Array, times_ms: Ints, at_least: Sequence[int], end_ms: int, days: float = 7
) -> list[int]:
    """UCI@N: users who consumed N or more unique clusters within the `days` before `end_ms`, for every N asked for.

    >>> week = 7 * 86_400_000
    >>> uci(np.array(["a", "a", "b"]), np.array([1, 2, 1]), np.array([5, 6, 7]), [1, 2], end_ms=week)
    [2, 1]
    """
    times = np.asarray(times_ms)
    inside = (times <= end_ms) & (times > end_ms - days * 86_400_000)
    pairs = _distinct_pairs(users[inside], clusters[inside])
    per_user = np.unique(pairs[0], return_counts=True)[1] if len(pairs[0]) else np.zeros(0, dtype=np.int64)
    return [int((per_user >= n).sum()) for n in at_least]


def ueuc(users: Array, clusters: Array, positive: Bools) -> int:
    """UEUC: distinct (user, cluster) pairs with positive feedback.

    >>> ueuc(np.array(["a", "a", "b"]), np.array([1, 1, 1]), np.array([True, True, False]))
    1
    """
    return len(_distinct_pairs(users[positive], clusters[positive])[0])


def _distinct_pairs(users: Array, clusters: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not len(users):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    user_code = np.unique(users, return_inverse=True)[1]
    names, cluster_code = np.unique(clusters, return_inverse=True)
    code = np.unique(user_code * len(names) + cluster_code)
    return code // len(names), code % len(names)


def retained_interest(users: Array, clusters: Array, times_ms: Ints, positive: Bools, days: float) -> float:
    """Share of positive (user, cluster) pairs that are engaged again at least `days` after their first positive event.

    >>> day = 86_400_000
    >>> arrays = np.array(["a", "a", "b"]), np.array([1, 1, 1]), np.array([0, 3 * day, 0]), np.array([True] * 3)
    >>> retained_interest(*arrays, days=2)
    0.5
    """
    keep = np.asarray(positive, dtype=bool)
    if not keep.any():
        return float("nan")
    user_code = np.unique(users[keep], return_inverse=True)[1]
    names, cluster_code = np.unique(clusters[keep], return_inverse=True)
    pair = np.unique(user_code * len(names) + cluster_code, return_inverse=True)[1]
    times = np.asarray(times_ms, dtype=np.float64)[keep]
    first = np.full(pair.max() + 1, np.inf)
    last = np.full(pair.max() + 1, -np.inf)
    np.minimum.at(first, pair, times)
    np.maximum.at(last, pair, times)
    return float(np.mean((last - first >= days * 86_400_000) & (last > first)))


@dataclass(frozen=True)
class Suppression:
    """How the rest of the system treats exploration candidates once they are proposed."""

    exposure: float
    """impressions per exploration candidate / impressions per familiar candidate"""
    appeal: float
    """positive rate of shown exploration items / positive rate of shown familiar items"""
    ratio: float
    """exposure / appeal: below 1, exploration is shown less than what people make of it would earn"""


def suppression_ratio(novel: Bools, shown: Bools, positive: Bools) -> Suppression:
    """Impressions per exploration candidate against its conditional positive rate, both relative to the familiar ones.

    Args:
        novel: [C], whether each candidate explores.
        shown: [C], whether it became an impression.
        positive: [C], whether it got positive feedback (only looked at where shown).

    >>> novel = np.array([True] * 4 + [False] * 4)
    >>> shown = np.array([True, True, False, False, True, True, True, True])
    >>> liked = np.array([True, True, False, False, True, True, False, False])
    >>> suppression_ratio(novel, shown, liked)
    Suppression(exposure=0.5, appeal=2.0, ratio=0.25)
    """
    novel, shown, positive = (np.asarray(a, dtype=bool) for a in (novel, shown, positive))

    def share(what: Bools, among: Bools) -> float:
        return float(what[among].mean()) if among.any() else float("nan")

    def over(a: float, b: float) -> float:
        return a / b if b > 0 else float("nan")

    exposure = over(share(shown, novel), share(shown, ~novel))
    appeal = over(share(positive, novel & shown), share(positive, ~novel & shown))
    return Suppression(exposure, appeal, over(exposure, appeal))
