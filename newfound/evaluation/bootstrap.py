"""Intervals by resampling users: events of one user are not independent, so users are what is drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from newfound.types import Array, Bools, Reals


class Interval(NamedTuple):
    """A figure and its interval."""

    value: float
    lower: float
    upper: float


class Bootstrap:
    """The same resamples of users for every measure, so that differences and ratios of measures are paired.

    Args:
        users: [B], the user of every event.
        resamples: how many times users are drawn with replacement.
        confidence: mass of the (percentile) interval.
        seed: of the draws.

    >>> boot = Bootstrap(np.array(["a", "a", "b"]), resamples=200, confidence=0.95, seed=1)
    >>> boot.mean(np.array([1.0, 1.0, 1.0]))
    Interval(value=1.0, lower=1.0, upper=1.0)
    """

    def __init__(self, users: Array, *, resamples: int, confidence: float, seed: int) -> None:
        names, self._user = np.unique(np.asarray(users), return_inverse=True)
        self._n = len(names)
        self._tail = (1 - confidence) / 2
        generator = np.random.default_rng(seed)
        self._draws = generator.multinomial(self._n, np.full(self._n, 1 / self._n), size=resamples) if self._n else None

    def _sums(self, values: Reals, mask: Bools | None) -> tuple[Array, Array]:
        """Sum and count of the values of every user, [U] each."""
        weights = np.ones(len(values)) if mask is None else mask.astype(np.float64)
        total = np.bincount(self._user, weights=np.where(weights > 0, values, 0.0), minlength=self._n)
        return total, np.bincount(self._user, weights=weights, minlength=self._n)

    def _interval(self, value: float, samples: Reals) -> Interval:
        samples = samples[np.isfinite(samples)]
        if not np.isfinite(value) or not len(samples):
            return Interval(value, float("nan"), float("nan"))
        lower, upper = np.quantile(samples, [self._tail, 1 - self._tail])
        return Interval(value, float(lower), float(upper))

    def mean(self, values: Reals, mask: Bools | None = None) -> Interval:
        """Mean over the events (of the mask) with its interval."""
        return self.ratio(values, np.ones(len(values)), mask)

    def ratio(self, above: Reals, below: Reals, mask: Bools | None = None) -> Interval:
        """Mean of one per-event figure over the mean of another, such as recall over chance, with its interval."""
        top, count = self._sums(above, mask)
        bottom, _ = self._sums(below, mask)
        if self._draws is None or count.sum() == 0 or bottom.sum() == 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = (self._draws @ top) / (self._draws @ bottom)
        return self._interval(float(top.sum() / bottom.sum()), samples)

    def difference(self, ours: Reals, theirs: Reals, mask: Bools | None = None) -> Interval:
        """Mean of `ours - theirs` over the same events, paired."""
        return self.mean(ours - theirs, mask)
