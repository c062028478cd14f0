"""The best items of each of several clusters after one history: what fills a slate.

`newfound.ranker.index.ItemIndex.top_k` answers what is best in the *union* of some clusters. A slate needs the best of
*each*, and asking for one after the other pays for numpy's overhead a dozen times; here they share one pass. The order
is the index's own: candidates come from fast products with a margin for their rounding, and are then scored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from newfound.errors import VocabularyError
from newfound.types import Floats, Ints, Span

if TYPE_CHECKING:
    from newfound.ranker import Ranker
    from newfound.ranker.index import Bonus, ItemIndex


@dataclass(frozen=True, slots=True)
class ClusterQuery:
    """What is ranked for one request: after this history, the `wanted` best items of each cluster, without some."""

    history: Sequence[str]
    clusters: Sequence[str]
    wanted: Sequence[int]
    exclude: Sequence[str] = ()


def rank_clusters(ranker: Ranker, orders: Sequence[ClusterQuery]) -> list[list[list[tuple[str, float]]]]:
    """Ranks each cluster on its own; each history is encoded once.

    Returns:
        Per request and cluster, (item id, score), best first.

    Raises:
        VocabularyError: the ranker does not know a cluster.
    """
    if not orders:
        return []
    known = [ranker.positions(order.history) for order in orders]
    answers: list[list[list[tuple[str, float]]]] = []
    for order, history, query in zip(orders, known, ranker.queries(known), strict=True):
        spans = [_span(ranker, cluster) for cluster in order.clusters]
        found = best_of_each(
            ranker.index, query, spans, order.wanted, ranker.positions(order.exclude), ranker.bonus(history, spans)
        )
        answers.append(
            [
                [(ranker.items[item], score) for item, score in zip(items.tolist(), scores.tolist(), strict=True)]
                for items, scores in found
            ]
        )
    return answers


def best_of_each(
    index: ItemIndex, query: Floats, spans: Sequence[Span], wanted: Sequence[int], exclude: Ints, bonus: Bonus
) -> list[tuple[Ints, Floats]]:
    """For each span, what `index.top_k` of that span alone gives.

    Args:
        index: the item vectors.
        query: float32 [dim].
        spans: slices of item positions; they may overlap and be empty.
        wanted: the most items of each span.
        exclude: positions never to be returned, in any order.
        bonus: what items get on top of their product.

    Returns:
        For each span, positions and scores, best first.
    """
    hidden = np.sort(exclude)
    edges = np.array(spans, dtype=np.int64).reshape(-1, 2)
    hidden_at, bonus_at = np.searchsorted(hidden, edges).tolist(), np.searchsorted(bonus.items, edges).tolist()
    length = float(np.linalg.norm(query)) * index.longest
    chosen: list[Ints] = []
    for (start, stop), (first, last), (low, high), k in zip(spans, hidden_at, bonus_at, wanted, strict=True):
        near = index.vectors[start:stop] @ query
        highest = 0.0
        if high > low:
            values = bonus.values[low:high]
            near[bonus.items[low:high] - start] += values
            highest = float(np.abs(values).max())
        if last > first:
            near[hidden[first:last] - start] = -np.inf
        if 0 < k < stop - start:
            # A dot product of d float32 terms errs by at most d * 2 ** -24 times the lengths; adding rounds once more.
            margin = 2 * ((len(query) + 2) * length + 2 * highest) * 2.0**-24
            kth = near[np.argpartition(near, -k)[-k]]
            bound = kth - np.float32(margin) - np.spacing(abs(kth)) if kth > -np.inf else kth
            places = np.flatnonzero((near >= bound) & (near > -np.inf))
        else:
            places = np.flatnonzero(near > -np.inf) if k else np.zeros(0, dtype=np.int64)
        chosen.append(start + places)
    candidates = np.concatenate([np.zeros(0, dtype=np.int64), *chosen])
    scores = index.scores(query, candidates, bonus)
    order = np.lexsort((candidates, -scores, np.repeat(np.arange(len(chosen)), [len(items) for items in chosen])))
    candidates, scores = candidates[order], scores[order]
    answers, at = [], 0
    for items, k in zip(chosen, wanted, strict=True):
        answers.append((candidates[at : at + min(k, len(items))], scores[at : at + min(k, len(items))]))
        at += len(items)
    return answers


def _span(ranker: Ranker, cluster: str) -> Span:
    try:
        return ranker.slices[cluster]
    except KeyError:
        raise VocabularyError(f"cluster {cluster!r} is not one that the ranker was made for") from None
