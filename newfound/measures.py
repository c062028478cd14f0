"""Ranking and concentration measures, each under its one name, as pure functions of numpy arrays.

Clusters and items are indices (int), users any sortable ids. A *rank* is 0 for the best answer. Where a measure is a
mean over events, its per-event values come from a function of their own, so that the bootstrap can resample users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from newfound.types import Array, Bools, Doubles, Ints, Reals


def ranks_of(scores: Reals, labels: Ints, excluded: Bools | None = None) -> Ints:
    """Rank of every label among the answers that are left after `excluded` is taken out; the one rank of the project.

    Equal scores are ordered by index: the order in which serving shows them (`argsort` of the negated scores, stable).
    So the rank is the position in what a person would see. Ranks that favour the label (optimistic) reward a scorer
    that says the same of everything, ranks that disfavour it (pessimistic) punish one for ties among answers that are
    shown in some order anyway; both are biased where scores tie, see Berrendorf et al., arXiv 2002.06914. The order by
    index is unbiased as long as the index says nothing of the label: clusters are numbered by their place in the tree,
    items by cluster and id.

    A label that is unknown (negative), excluded, or whose score is minus infinity or not a number, was not answered at
    all: its rank is the number of columns.

    Args:
        scores: [B, N], higher is better.
        labels: [B] column indices; negative for an answer that has no column.
        excluded: [B, N], True for answers that may not be given (the user's own history).

    >>> ranks_of(np.array([[0.5, 0.9, 0.7]]), np.array([2]))
    array([1])
    >>> ranks_of(np.array([[0.5, 0.9, 0.7]]), np.array([2]), np.array([[False, True, False]]))
    array([0])
    >>> ranks_of(np.array([[0.5, 0.5, 0.5]]), np.array([1]))
    array([1])
    """
    rows = np.arange(len(scores))
    own = scores[rows, labels]
    above, tied = scores > own[:, None], scores == own[:, None]
    answered = (own > -np.inf) & (labels >= 0)
    if excluded is not None:
        above &= ~excluded
        tied &= ~excluded
        answered &= ~excluded[rows, labels]
    ranks = above.sum(axis=1)
    for row in np.flatnonzero(answered & (tied.sum(axis=1) > 1)):
        ranks[row] += tied[row, : labels[row]].sum()
    found: Ints = np.where(answered, ranks, scores.shape[1]).astype(np.int64)
    return found


def hits(ranks: Ints, k: int) -> Doubles:
    """1 where the answer is within the first k, else 0: the per-event values of every recall and hit rate.

    >>> hits(np.array([0, 1, 9, 10]), 10)
    array([1., 1., 1., 0.])
    """
    return (np.asarray(ranks) < k).astype(np.float64)


def gains(ranks: Ints, k: int) -> Doubles:
    """1 / log2(rank + 2) within the first k, else 0: NDCG@k where one answer is right (the ideal gain is then 1).

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.

    >>> gains(np.array([0, 2, 10]), 10)
    array([1. , 0.5, 0. ])
    """
    ranks = np.asarray(ranks)
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def _mean(values: Reals) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def hit_rate(ranks: Ints, k: int) -> float:
    """Share of events whose one right answer is in the top k: HR@k of items, Recall@k and NovelRecall@k of clusters.

    >>> hit_rate(np.array([0, 3, 12]), 10).__round__(3)
    0.667
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

    Source: Voorhees, "The TREC-8 question answering track report", 1999.

    >>> mean_reciprocal_rank(np.array([0, 1, 3])).__round__(4)
    0.5833
    """
    return _mean(reciprocal_ranks(ranks, answers))


def reciprocal_ranks(ranks: Ints, answers: int | None = None) -> Reals:
    """1 / (rank + 1) of every event, 0 from rank `answers` on.

    >>> reciprocal_ranks(np.array([0, 3]), 3)
    array([1., 0.])
    """
    values: Reals = 1.0 / (np.asarray(ranks) + 1.0)
    return values if answers is None else values * (np.asarray(ranks) < answers)


def chance(k: int, n: int, history_sizes: Ints) -> Doubles:
    """NovelRecall@k of a blind draw, per event: min(1, k / (N - |history|)).

    >>> chance(10, 120, np.array([20, 115]))
    array([0.1, 1. ])
    """
    left: Ints = np.maximum(n - np.asarray(history_sizes), 1)
    blind: Doubles = np.minimum(1.0, k / left)
    return blind


def label_deciles(frequency: Ints) -> Ints:
    """Decile of every label by its frequency in training: 0 the rarest tenth, 9 the most frequent; ties by index.

    >>> label_deciles(np.array([5, 1, 9, 3, 7]))
    array([4, 0, 8, 2, 6])
    """
    n = len(frequency)
    order = np.argsort(np.asarray(frequency), kind="stable")
    deciles = np.empty(n, dtype=np.int64)
    deciles[order] = np.arange(n) * 10 // n
    return deciles


def recall_by_decile(ranks: Ints, labels: Ints, frequency: Ints, k: int) -> Doubles:
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


def answer_counts(answers: Ints, n: int) -> Ints:
    """Answers of each of N labels, counted; negative entries are padding.

    >>> answer_counts(np.array([[0, 1], [1, -1]]), 3)
    array([1, 2, 0])
    """
    flat = np.asarray(answers).ravel()
    return np.bincount(flat[flat >= 0], minlength=n).astype(np.int64)


def gini(counts: Array) -> float:
    """Gini coefficient of non-negative counts: 0 when all are equal, (n - 1) / n when one has everything.

    Half the relative mean difference of all pairs, computed from sorted counts: sum (2i - n - 1) x_i / (n sum x); see
    Damgaard and Weiner, "Describing inequality in plant size or fecundity", Ecology 2000. NaN of nothing.

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

    Pielou's evenness ("The measurement of diversity in different types of biological collections", 1966), over all n
    labels, counted or not. NaN of nothing.

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
