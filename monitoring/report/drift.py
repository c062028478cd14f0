"""Distances between the impressions of two windows, and the bounds that chance alone explains.

A distance of two samples is never 0, and what a user sees and does on one slate is no news on the next. So the bound of
chance comes from users: each user's share in the difference of the samples is multiplied by a normal random number (a
wild bootstrap whose clusters are users, of the whole distribution). A user of both windows gets one number for both, so
that what they have in common cancels out as it does in the samples. The largest of all columns' distances, each in its
own standard deviations, gives one bound to all columns: where nothing drifts, a report says of any column that it did
with probability `FALSE_ALARMS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from newfound.schema import USER_KEY

FALSE_ALARMS: Final = 0.01  # share of the reports without drift in which any column passes its bound
OTHERS: Final = "(others)"
_FEWEST: Final = 20  # impressions of a category in both windows; rarer ones count as one category
_DRAWS, _AT_ONCE, _SEED = 1000, 100, 7


def merge_rare(current: pd.Series, reference: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Both samples as strings, rare categories as one: alone each tells nothing, and together they add their noise."""
    now, before = current.astype(str), reference.astype(str)
    counts = now.value_counts().add(before.value_counts(), fill_value=0)
    common = counts.index[counts >= _FEWEST]
    return now.where(now.isin(common), OTHERS), before.where(before.isin(common), OTHERS)


def jensen_shannon(current: pd.Series, reference: pd.Series) -> float:
    """Jensen-Shannon distance of two samples of categories: the root of the divergence in nats, at most sqrt(ln 2).

    Terms are added in the order of the categories: the same samples give the same number, to the last bit.
    """
    shares = [sample.value_counts(normalize=True) for sample in (current, reference)]
    names = sorted(set(shares[0].index) | set(shares[1].index))
    p, q = (share.reindex(names, fill_value=0.0).to_numpy() for share in shares)
    middle, divergence = (p + q) / 2, 0.0
    for part in (p, q):
        some = part > 0
        divergence += float(np.sum(part[some] * np.log(part[some] / middle[some]))) / 2
    return math.sqrt(max(divergence, 0.0))


def chance(
    current: pd.DataFrame, reference: pd.DataFrame, numbers: Sequence[str], categories: Sequence[str]
) -> dict[str, float]:
    """By column, how far apart chance alone takes the two samples.

    Args:
        current: sampled impressions of the window, with `user_key`.
        reference: those of the reference windows.
        numbers: numerical columns: Wasserstein distance over the reference's standard deviation. Rows without a
            value are left out.
        categories: categorical columns: Jensen-Shannon distance.

    Returns:
        Bounds that any column passes with probability `FALSE_ALARMS`.

    Raises:
        ValueError: a column has values of a single user in a sample, which says nothing of how users differ.
    """
    names = (*numbers, *categories)
    users, known = pd.factorize(pd.concat([current[USER_KEY], reference[USER_KEY]]))
    columns = [_Column.of(current[name], reference[name], users, name in numbers) for name in names]
    rng = np.random.default_rng(_SEED)
    distances = np.empty((len(names), _DRAWS))
    for first in range(0, _DRAWS, _AT_ONCE):
        drawn = rng.standard_normal((len(known), _AT_ONCE))
        for row, column in enumerate(columns):
            distances[row, first : first + _AT_ONCE] = column.distances(drawn)
    mean, deviation = distances.mean(axis=1, keepdims=True), distances.std(axis=1, keepdims=True)
    largest = ((distances - mean) / np.where(deviation > 0, deviation, 1)).max(axis=0)
    bounds = (mean + deviation * np.quantile(largest, 1 - FALSE_ALARMS)).ravel()
    return dict(zip(names, bounds.tolist(), strict=True))


@dataclass(frozen=True)
class _Column:
    """Contributions of users to the difference of a column's two distributions.

    Attributes:
        users: [values, users], each user's share of each value, in the window less that in the reference.
        windows: for either sample, its distribution [values] and each user's share of it [users].
        gaps: [values], the distance from each value to the next over the standard deviation; None for categories.
    """

    users: Any  # scipy.sparse.csr_array
    windows: tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]
    gaps: npt.NDArray[np.float64] | None

    @classmethod
    def of(cls, current: pd.Series, reference: pd.Series, users: npt.NDArray[np.int64], number: bool) -> _Column:
        both = pd.concat([current, reference])
        there = both.notna().to_numpy()
        codes, values = pd.factorize(both[there], sort=True)
        mine, now = users[there], (np.arange(len(both)) < len(current))[there]
        shape, windows, difference = (len(values), int(users.max()) + 1), [], None
        for sample, sign in ((now, 1.0), (~now, -1.0)):
            count = len(np.unique(mine[sample]))
            if count < 2:
                raise ValueError(f"column {current.name!r}: values of {count} users in a sample; expected two or more")
            weights = np.full(int(sample.sum()), sign / sample.sum())
            made = sparse.coo_array((weights, (codes[sample], mine[sample])), shape=shape).tocsr()
            # A few users vary less around their own mean than around the truth.
            made *= math.sqrt(count / (count - 1))
            difference = made if difference is None else difference + made
            share = np.bincount(codes[sample], minlength=shape[0]) / sample.sum()
            windows.append((share, np.asarray(made.sum(axis=0)).ravel()))
        gaps = None
        if number:
            deviation = max(float(np.std(both[there][~now].to_numpy(dtype=float))), 0.001)  # Evidently's scale
            gaps = np.append(np.diff(values.to_numpy(dtype=float)), 0.0) / deviation
        return cls(difference, tuple(windows), gaps)

    def distances(self, drawn: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Distances [draws] of the samples, of random numbers [users, draws]."""
        apart = self.users @ drawn
        for share, of_user in self.windows:
            apart -= np.outer(share, of_user @ drawn)
        if self.gaps is not None:
            return np.abs(np.cumsum(apart, axis=0)).T @ self.gaps
        (p, _), (q, _) = self.windows
        return np.sqrt((apart**2 / (4 * (p + q))[:, None]).sum(axis=0))
