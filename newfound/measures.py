"""The measures, each under its one name, as pure functions of numpy arrays.

Clusters and items are indices (int), users any sortable ids. A *rank* is 0 for the best answer. Where a measure is a
mean over events, its per-event values come from a function of their own, so that the bootstrap can resample users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[Any]
Floats = NDArray[Any]
Bools = NDArray[np.bool_]


def ranks_of(scores: Floats, labels: Ints, excluded: Bools | None = None) -> NDArray[np.int64]:
    """Rank of every label among the answers that are left after `excluded` is taken out.

    Equal scores are ordered by index, as serving would show them. A label that is itself excluded, or whose score is
    not a number or minus infinity, was not answered at all: its rank is the number of columns.

    Args:
        scores: [B, N], higher is better.
        labels: [B].
        excluded: [B, N], True for answers that may not be given (the user's own history).

    >>> ranks_of(np.array([[0.5, 0.9, 0.7]]), np.array([2]))
    array([1])
    >>> ranks_of(np.array([[0.5, 0.9, 0.7]]), np.array([2]), np.array([[False, True, False]]))
    array([0])
    """
    rows, n = scores.shape
    allowed = np.isfinite(scores) if excluded is None else np.isfinite(scores) & ~excluded
    at = np.arange(rows)
    own = np.where(allowed[at, labels], scores[at, labels], np.inf)[:, None]
    before = np.arange(n)[None, :] < labels[:, None]
    better = allowed & ((scores > own) | ((scores == own) & before))
    ranks: NDArray[np.int64] = np.where(allowed[at, labels], better.sum(axis=1), n).astype(np.int64)
    return ranks


def hits(ranks: Ints, k: int) -> Floats:
    """1 where the answer is within the first k, else 0: the per-event values of every recall and hit rate.

    >>> hits(np.array([0, 1, 9, 10]), 10)
    array([1., 1., 1., 0.])
    """
    return (np.asarray(ranks) < k).astype(np.float64)


def gains(ranks: Ints, k: int) -> Floats:
    """1 / log2(rank + 2) within the first k, else 0: NDCG@k where one answer is right.

    >>> gains(np.array([0, 2, 10]), 10)
    array([1. , 0.5, 0. ])
    """
    ranks = np.asarray(ranks)
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def novel_recall(ranks: Ints, k: int) -> float:
    """NovelRecall@k: share of events whose held-out novel cluster is in the top k, the user's history taken out.

    >>> novel_recall(np.array([0, 3, 12]), 10).__round__(3)
    0.667
    """
    return _mean(hits(ranks, k))


def hit_rate(ranks: Ints, k: int) -> float:
    """HR@k: share of events whose held-out item is in the top k.

    >>> hit_rate(np.array([0, 10]), 10)
    0.5
    """
    return _mean(hits(ranks, k))


def ndcg(ranks: Ints, k: int) -> float:
    """NDCG@k where one item is right.

    >>> ndcg(np.array([0, 2, 10]), 10)
    0.5
    """
    return _mean(gains(ranks, k))


def mean_reciprocal_rank(ranks: Ints, answers: int | None = None) -> float:
    """MRR: mean of 1 / (rank + 1); a rank of `answers` or more (never answered) counts 0.

    >>> mean_reciprocal_rank(np.array([0, 1, 3])).__round__(4)
    0.5833
    """
    return _mean(reciprocal_ranks(ranks, answers))


def reciprocal_ranks(ranks: Ints, answers: int | None = None) -> Floats:
    """1 / (rank + 1) of every event, 0 from rank `answers` on.

    >>> reciprocal_ranks(np.array([0, 3]), 3)
    array([1., 0.])
    """
    values: Floats = 1.0 / (np.asarray(ranks) + 1.0)
    return values if answers is None else values * (np.asarray(ranks) < answers)


def chance(k: int, n: int, history_sizes: Ints) -> Floats:
    """NovelRecall@k of a blind draw, per event: min(1, k / (N - |history|)).

    >>> chance(10, 120, np.array([20, 115]))
    array([0.1, 1. ])
    """
    left: Floats = np.maximum(n - np.asarray(history_sizes), 1)
    blind: Floats = np.minimum(1.0, k / left)
    return blind


def label_deciles(frequency: Ints) -> NDArray[np.int64]:
    """Decile of every label by its frequency in training: 0 the rarest tenth, 9 the most frequent; ties by index.

    >>> label_deciles(np.array([5, 1, 9, 3, 7]))
    array([4, 0, 8, 2, 6])
    """
    n = len(frequency)
    order = np.argsort(np.asarray(frequency), kind="stable")
    deciles = np.empty(n, dtype=np.int64)
    deciles[order] = np.arange(n) * 10 // n
    return deciles


def recall_by_decile(ranks: Ints, labels: Ints, frequency: Ints, k: int) -> Floats:
    """Macro recall by label-frequency decile: recall@k per label, averaged over the labels of each decile.

    Args:
        ranks: [B].
        labels: [B].
        frequency: [N], how often each label occurred in training.

    Returns:
        [10], NaN for a decile none of whose labels is among the events.

    >>> recall_by_decile(np.array([0, 5, 0]), np.array([0, 0, 1]), np.array([1, 2]), 1)[[0, 5]]
    array([0.5, 1. ])
    """
    deciles, counts = label_deciles(frequency), np.bincount(labels, minlength=len(frequency))
    found = np.bincount(labels, weights=hits(ranks, k), minlength=len(frequency))
    out = np.full(10, np.nan)
    for decile in range(10):
        present = (deciles == decile) & (counts > 0)
        if present.any():
            out[decile] = np.mean(found[present] / counts[present])
    return out


def macro_recall(ranks: Ints, labels: Ints, frequency: Ints, k: int) -> float:
    """Mean of the deciles' macro recalls, empty deciles left out: every part of the frequency range weighs the same.

    >>> macro_recall(np.array([0, 5, 0]), np.array([0, 0, 1]), np.array([1, 2]), 1)
    0.75
    """
    return float(np.nanmean(recall_by_decile(ranks, labels, frequency, k))) if len(ranks) else float("nan")


def label_coverage(answers: Ints, n: int) -> float:
    """Share of the N labels that are answered at least once; negative entries are padding.

    >>> label_coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    flat = np.asarray(answers).ravel()
    return len(np.unique(flat[flat >= 0])) / n


def answer_counts(answers: Ints, n: int) -> NDArray[np.int64]:
    """How often each of N labels is answered; negative entries are padding.

    >>> answer_counts(np.array([[0, 1], [1, -1]]), 3)
    array([1, 2, 0])
    """
    flat = np.asarray(answers).ravel()
    return np.bincount(flat[flat >= 0], minlength=n).astype(np.int64)


def gini(counts: Array) -> float:
    """Gini coefficient of non-negative counts: 0 when all are equal, (n - 1) / n when one has everything.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    values = np.sort(np.asarray(counts, dtype=np.float64))
    total, n = values.sum(), len(values)
    if n == 0 or total == 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total))


def normalised_entropy(counts: Array) -> float:
    """Entropy of the counts' distribution over its maximum, log n: 1 when all are equal, 0 when one has everything.

    >>> normalised_entropy(np.array([2, 2, 0, 0]))
    0.5
    """
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    if total == 0 or len(values) < 2:
        return float("nan")
    p = values[values > 0] / total
    return float(-(p * np.log(p)).sum() / np.log(len(values))) + 0.0


def leak(answers: Ints, seen: Bools) -> float:
    """Share of raw answers (before any filter) that are already in the user's history.

    Args:
        answers: [B, k] label indices; negative entries are padding.
        seen: [B, N].

    >>> leak(np.array([[0, 1], [1, -1]]), np.array([[True, False], [False, False]])).__round__(3)
    0.333
    """
    answers = np.asarray(answers)
    given = answers >= 0
    repeated = seen[np.arange(len(answers))[:, None], np.where(given, answers, 0)] & given
    return float(repeated.sum() / given.sum()) if given.any() else float("nan")


def grounding_precision(returned: Sequence[Sequence[str]], members: Sequence[set[str]]) -> float:
    """Share of the items returned for a cluster that belong to it, over all requests.

    >>> grounding_precision([["a", "b"], ["c"]], [{"a", "z"}, {"c"}]).__round__(3)
    0.667
    """
    total = sum(len(items) for items in returned)
    right = sum(item in own for items, own in zip(returned, members, strict=True) for item in items)
    return right / total if total else float("nan")


def grounding_recall(returned: Sequence[Sequence[str]], members: Sequence[set[str]], k: int) -> float:
    """Items returned that belong, over min(k, items that the cluster has): below 1 where a thin cluster failed.

    An empty cluster asks for k items all the same, which only a back-off could have supplied.

    >>> grounding_recall([["a", "b"], []], [{"a", "b", "z"}, {"c"}], 2).__round__(3)
    0.667
    """
    wanted = sum(min(k, len(own)) or k for own in members)
    right = sum(len(own.intersection(items)) for items, own in zip(returned, members, strict=True))
    return right / wanted if wanted else float("nan")


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


def successor_jaccard(ours: Ints, theirs: Ints) -> float:
    """Mean Jaccard of the successors of the same pairs in two tables; negative entries are padding.

    Args:
        ours: [P, k] cluster indices (k = 5 by convention).
        theirs: [P, k], the same pairs in the same order.

    >>> successor_jaccard(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]])).__round__(3)
    0.667
    """
    values = []
    for left, right in zip(np.asarray(ours), np.asarray(theirs), strict=True):
        a, b = {int(c) for c in left if c >= 0}, {int(c) for c in right if c >= 0}
        values.append(len(a & b) / len(a | b) if a | b else 1.0)
    return _mean(np.array(values))


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
