"""Exact best items within slices of the catalogue.

Items lie in cluster order, so a cluster at any level of the tree is one contiguous slice of the item vectors, and a
request reads its own slices and nothing else: what it costs depends on their size, not on the catalogue's.

The order of items is defined without regard to how a product was computed: an item's score is its product with the
query in double precision, its components added in one fixed order, plus its bonus, rounded to single precision; a
higher score comes first, then the lower position. Fast products in single precision only narrow the choice down, with
a margin that covers their rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from newfound.types import Floats, Ints, Span


class Bonus(NamedTuple):
    """Part of some items' scores beside their product."""

    items: Ints  # ascending positions
    values: Floats


class Best(NamedTuple):
    """Items and their scores, best first."""

    items: Ints
    scores: Floats


class EncodedHistory(NamedTuple):
    """A history as the ranker reads it."""

    query: Floats  # [dim]
    bonus: Bonus  # of all items


NO_ITEMS = np.zeros(0, dtype=np.int64)
NO_BONUS = Bonus(NO_ITEMS, np.zeros(0, dtype=np.float32))


class ItemIndex:
    """Item vectors in cluster order.

    Args:
        vectors: float32 [items, dim], C-contiguous; may be a memory map.
        longest: no vector is longer than this.
    """

    def __init__(self, vectors: Floats, longest: float = 1.0) -> None:
        self.vectors = vectors
        self.longest = longest

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(self, query: Floats, items: Ints, bonus: Bonus = NO_BONUS) -> Floats:
        """The defining scores of some items, float32 [items]."""
        products = (self.vectors[items].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        if len(bonus.items):
            at = np.searchsorted(bonus.items, items).clip(max=len(bonus.items) - 1)
            products += np.where(bonus.items[at] == items, bonus.values[at].astype(np.float64), 0.0)
        scores: Floats = products.astype(np.float32)
        return scores

    def top_k(
        self,
        queries: Floats,
        spans: Sequence[Sequence[Span]],
        k: int,
        exclude: Sequence[Ints] | None = None,
        bonus: Sequence[Bonus] | None = None,
    ) -> list[Best]:
        """The k best items of each request's own spans: exactly those that scoring every item and masking would give.

        Args:
            queries: float32 [B, dim].
            spans: per request, slices of item positions (start, stop); they may overlap, touch or be empty.
            k: most items a request gets; it gets fewer where its spans hold fewer.
            exclude: per request, positions never to be returned, in any order.
            bonus: per request, what items get on top.

        Raises:
            ValueError: k is negative, or a span leaves the catalogue.
        """
        if k < 0:
            raise ValueError(f"k is {k}; expected 0 or more")
        exclude = exclude or [NO_ITEMS] * len(spans)
        bonus = bonus or [NO_BONUS] * len(spans)
        return [
            self._one(query, disjoint(wanted, len(self)), k, out, extra)
            for query, wanted, out, extra in zip(queries, spans, exclude, bonus, strict=True)
        ]

    def top_k_per_span(
        self,
        query: Floats,
        spans: Sequence[Span],
        wanted: Sequence[int],
        exclude: Ints = NO_ITEMS,
        bonus: Bonus = NO_BONUS,
    ) -> list[Best]:
        """The best items of each span on its own, in one pass: for each of them what `top_k` gives.

        Args:
            query: float32 [dim].
            spans: slices of item positions; they may overlap and be empty.
            wanted: the most items of each span.
            exclude: positions never to be returned, in any order.
            bonus: what items get on top.
        """
        hidden, edges = np.sort(exclude), np.array(spans, dtype=np.int64).reshape(-1, 2)
        hidden_at, bonus_at = np.searchsorted(hidden, edges).tolist(), np.searchsorted(bonus.items, edges).tolist()
        chosen: list[Ints] = []
        for (start, stop), (first, last), (low, high), k in zip(spans, hidden_at, bonus_at, wanted, strict=True):
            near = self.vectors[start:stop] @ query
            if high > low:
                near[bonus.items[low:high] - start] += bonus.values[low:high]
            if last > first:
                near[hidden[first:last] - start] = -np.inf
            chosen.append(start + self._contenders(near, k, query, bonus.values[low:high]))
        candidates = np.concatenate([NO_ITEMS, *chosen])
        scores = self.scores(query, candidates, bonus)
        order = np.lexsort((candidates, -scores, np.repeat(np.arange(len(chosen)), [len(items) for items in chosen])))
        candidates, scores = candidates[order], scores[order]
        answers, at = [], 0
        for items, k in zip(chosen, wanted, strict=True):
            best = slice(at, at + min(k, len(items)))
            answers.append(Best(candidates[best], scores[best]))
            at += len(items)
        return answers

    def _one(self, query: Floats, spans: list[Span], k: int, exclude: Ints, bonus: Bonus) -> Best:
        starts = np.array([start for start, _ in spans], dtype=np.int64)
        sizes = np.array([stop - start for start, stop in spans], dtype=np.int64)
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        if not total or not k:
            return Best(NO_ITEMS, np.zeros(0, dtype=np.float32))
        near = np.empty(total, dtype=np.float32)  # one score for each place in the joined spans
        for (start, stop), end in zip(spans, ends.tolist(), strict=True):
            np.dot(self.vectors[start:stop], query, out=near[end - (stop - start) : end])
        if len(bonus.items):
            at, inside = _places(bonus.items, starts, sizes, ends)
            near[at] += bonus.values[inside]
        if len(exclude):
            at, _ = _places(np.unique(exclude), starts, sizes, ends)
            near[at] = -np.inf
        places = self._contenders(near, k, query, bonus.values)
        span = np.searchsorted(ends, places, side="right")
        items = starts[span] + places - (ends[span] - sizes[span])
        scores = self.scores(query, items, bonus)
        order = np.lexsort((items, -scores))[:k]
        return Best(items[order], scores[order])

    def _contenders(self, near: Floats, k: int, query: Floats, added: Floats) -> Ints:
        """Places of `near` that may be among the k best by the defining scores; minus infinity is none of them.

        Args:
            near: scores by fast products.
            k: how many are wanted.
            query: what they are products with.
            added: the bonuses that are in them.
        """
        if not k:
            return NO_ITEMS
        kth = np.partition(near, len(near) - k)[len(near) - k] if k < len(near) else np.float32(-np.inf)
        if kth == -np.inf:
            return np.flatnonzero(near > -np.inf)
        length = float(np.linalg.norm(query)) * self.longest
        highest = float(np.abs(added).max()) if len(added) else 0.0
        # A dot product of d float32 terms errs by at most d * 2 ** -24 times the lengths; adding rounds once more.
        margin = 2 * ((len(query) + 2) * length + 2 * highest) * 2.0**-24
        return np.flatnonzero(near >= kth - np.float32(margin) - np.spacing(abs(kth)))


def disjoint(spans: Sequence[Span], size: int) -> list[Span]:
    """The union of some spans, as ascending spans that neither overlap nor are empty.

    >>> disjoint([(6, 8), (0, 4), (2, 5), (5, 5)], 10)
    [(0, 5), (6, 8)]

    Raises:
        ValueError: a span leaves 0 .. size.
    """
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if not 0 <= start <= stop <= size:
            raise ValueError(f"span ({start}, {stop}); expected 0 <= start <= stop <= {size}")
        if start == stop:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _places(items: Ints, starts: Ints, sizes: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Places of items in the joined spans, and which of the given items lie in them at all."""
    span = np.searchsorted(starts, items, side="right") - 1
    offset = items - starts[span.clip(min=0)]
    inside = np.flatnonzero((span >= 0) & (offset < sizes[span.clip(min=0)]))
    return (ends - sizes)[span[inside]] + offset[inside], inside
