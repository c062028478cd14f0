"""Fits the decision's weights to what people liked of what they looked at.

A log of choices holds what an older system led people to: what it showed often was chosen often, and a model of choices
learns its taste. Where every look is logged, liked or not, exposure drops out, for it is given:

    P(liked | looked) = sigmoid(constant + sum of weights * terms)

by maximum likelihood with a normal prior around zero, in units of each term's spread. The weights are those of
utilities, so the decision that follows them is the nested logit with dissimilarity one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from newfound.types import Array, Bools

PRIOR: Final = 10.0  # looks' worth of it
STEPS: Final = 20
TOLERANCE: Final = 1e-6


def fit_looks(terms: Mapping[str, Array], liked: Bools) -> dict[str, float]:
    """Weights by term; all zero where everything or nothing was liked.

    Args:
        terms: by name, [B], of the items that were looked at.
        liked: [B].

    >>> weights = fit_looks({"good": np.tile([0.0, 1.0], 200)}, np.tile([False, True], 200))
    >>> weights["good"] > 3
    True
    """
    names = list(terms)
    if not len(liked) or liked.all() or not liked.any():
        return dict.fromkeys(names, 0.0)
    x = np.stack([terms[name] for name in names], axis=1).astype(np.float64)
    spread = np.maximum(x.std(axis=0), 1e-6)
    z = np.concatenate([(x - x.mean(axis=0)) / spread, np.ones((len(x), 1))], axis=1)
    prior = np.append(np.full(len(names), PRIOR), 1e-6)
    y = liked.astype(np.float64)
    weights = np.zeros(len(prior))
    weights[-1] = np.log(y.mean() / (1 - y.mean()))
    for _ in range(STEPS):  # Newton's method; the prior keeps it from running away
        chance = 1 / (1 + np.exp(-(z @ weights)))
        gradient = z.T @ (y - chance) - prior * weights
        step = np.linalg.solve((z * (chance * (1 - chance))[:, None]).T @ z + np.diag(prior), gradient)
        weights += step
        if np.abs(step).max() < TOLERANCE:
            break
    return dict(zip(names, (weights[:-1] / spread).tolist(), strict=True))
