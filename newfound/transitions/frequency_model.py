"""Pair frequencies with back-off: what followed this context, what followed its interests, what is popular.

The simplest thing that can be learned from transitions. It makes the table where no planner can be had, ranks the
clusters that a table leaves open, and is a baseline of the planner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from newfound.types import Floats, Ints, Reals


@dataclass(frozen=True)
class Backoff:
    """Weights of the coarser estimates, in observations."""

    context: float = 100.0  # the single interests' estimate against the very context's counts
    single: float = 400.0  # popularity against a single interest's counts
    popularity: float = 1.0  # uniform against the popularity counts, for each cluster


class FrequencyModel:
    """Distributions over the next cluster.

    The very context's counts are smoothed towards a product of its interests' estimates: popularity times, for each
    interest, how much more often a cluster follows there than anywhere (all smoothed towards popularity in turn).

    Args:
        contexts: [T, K] cluster indices, oldest first.
        labels: [T].
        n: number of clusters.
        weights: [T]; one each where None.
    """

    def __init__(
        self, contexts: Ints, labels: Ints, n: int, weights: Reals | None = None, backoff: Backoff | None = None
    ) -> None:
        self.n = n
        self.width = contexts.shape[1]
        self.backoff = backoff or Backoff()
        mass = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
        counts = np.bincount(labels, weights=mass, minlength=n) + self.backoff.popularity
        self.popularity = counts / counts.sum()  # [N]
        self.singles = np.zeros((self.width, n, n))  # place in the context, interest, next
        for place in range(self.width):
            np.add.at(self.singles[place], (contexts[:, place], labels), mass)
        codes = self._codes(contexts)
        self.known, context = np.unique(codes, return_inverse=True)  # codes of the observed contexts, sorted
        cells, cell = np.unique(context.astype(np.int64) * n + labels, return_inverse=True)
        self._cell_context, self._cell_label = cells // n, cells % n
        self._cell_mass = np.bincount(cell, weights=mass, minlength=len(cells))
        self._cell_start = np.searchsorted(self._cell_context, np.arange(len(self.known) + 1))
        self.context_mass = np.bincount(context, weights=mass, minlength=len(self.known))

    def _codes(self, contexts: Ints) -> Ints:
        codes: Ints = contexts.astype(np.int64) @ (self.n ** np.arange(contexts.shape[1] - 1, -1, -1, dtype=np.int64))
        return codes

    def contexts(self) -> Ints:
        """[U, K] the observed contexts, sorted."""
        powers = self.n ** np.arange(self.width - 1, -1, -1, dtype=np.int64)
        places: Ints = self.known[:, None] // powers % self.n
        return places

    def distribution(self, contexts: Ints) -> Floats:
        """p(next | context), [B, N]; the context's own clusters have none, since they are not new.

        Args:
            contexts: [B, J] with J at most K; a shorter one counts as the last interests.
        """
        first = self.width - contexts.shape[1]
        log_popularity = np.log(self.popularity)
        logs = np.tile(log_popularity, (len(contexts), 1))
        for place in range(contexts.shape[1]):
            counts = self.singles[first + place][contexts[:, place]]  # [B, N]
            smoothed = counts + self.backoff.single * self.popularity
            logs += np.log(smoothed / smoothed.sum(1, keepdims=True)) - log_popularity
        np.put_along_axis(logs, contexts, -np.inf, axis=1)
        out = np.exp(logs - logs.max(1, keepdims=True))
        out /= out.sum(1, keepdims=True)
        if first == 0:
            out *= self.backoff.context
            codes = self._codes(contexts)
            at = np.searchsorted(self.known, codes)
            for row in np.flatnonzero(self.known[np.minimum(at, len(self.known) - 1)] == codes):
                cells = slice(self._cell_start[at[row]], self._cell_start[at[row] + 1])
                out[row, self._cell_label[cells]] += self._cell_mass[cells]
            np.put_along_axis(out, contexts, 0.0, axis=1)
            out /= out.sum(1, keepdims=True)
        result: Floats = out.astype(np.float32)
        return result
