"""Off-policy estimates: what another policy would have earned, from what this one logged.

An action is (slot, cluster). Its logged propensity is its exact probability given the slots above it, so a slate's is
the product along the slate (`along_slates`), and a reward can be weighed by how much more, or less, often the other
policy would have come to the same action by the same way. Everything here is numpy over arrays of one entry a logged
slot.

Formulas: Horvitz and Thompson (1952) for IPS; Swaminathan and Joachims (2015) for the self-normalised SNIPS; Dudik,
Langford and Li (2011) for the doubly robust estimator; Kish (1965) for the effective sample size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from newfound.types import Array


@dataclass(frozen=True)
class Estimate:
    """An estimated mean reward a slot.

    Attributes:
        value: the estimate; NaN without slots.
        standard_error: of the estimate; slots of one slate count as one cluster where groups were given.
        effective_sample_size: slots that an on-policy sample of the same precision would need, (sum w)^2 / sum w^2.
        slots: logged slots.
        clipped: share of the weights that were clipped: each makes the estimate steadier and biased.
    """

    value: float
    standard_error: float
    effective_sample_size: float
    slots: int
    clipped: float


def along_slates(probabilities: Array, slates: Array) -> Array:
    """Probability of each slot together with those above it: products along the slate.

    Args:
        probabilities: [S], each slot's given the slots above it.
        slates: [S], slate of each slot; a slate's slots follow one another, the topmost first.

    >>> along_slates(np.array([0.5, 0.5, 0.2]), np.array(["a", "a", "b"]))
    array([0.5 , 0.25, 0.2 ])
    """
    found = np.asarray(probabilities, dtype=np.float64).copy()
    slates = np.asarray(slates)
    for at in range(1, len(found)):
        if slates[at] == slates[at - 1]:
            found[at] *= found[at - 1]
    return found


def at_temperature(candidates: Mapping[str, float], floor: float, ratio: float) -> dict[str, float]:
    """A slot's probabilities if it had been drawn at another temperature.

    Args:
        candidates: logged probability of each cluster that the slot could have shown.
        floor: the part of each that is exploration's.
        ratio: the logged temperature over the other one; 2 is half the temperature.

    >>> at_temperature({"a": 0.75, "b": 0.25}, 0.0, 2.0)
    {'a': 0.9, 'b': 0.1}
    """
    own = {cluster: max(value - floor, 0.0) for cluster, value in candidates.items()}
    decided = math.fsum(own.values())
    top = max(own.values(), default=0.0)
    if top <= 0:
        return dict(candidates)
    raised = {cluster: (value / top) ** ratio for cluster, value in own.items()}
    total = math.fsum(raised.values())
    return {cluster: floor + decided * value / total for cluster, value in raised.items()}


def weights(target: Array, propensities: Array, clip: float | None = None) -> Array:
    """Importance weights target / propensity, at most `clip`.

    Args:
        target: [S], the other policy's probability of the action that was logged.
        propensities: [S], the logging policy's.
        clip: the largest weight allowed; None leaves them as they are.

    Raises:
        ValueError: a propensity is not in (0, 1], or a target probability not in [0, 1].

    >>> weights(np.array([0.5, 0.0]), np.array([0.25, 1.0]))
    array([2., 0.])
    """
    target, propensities = np.asarray(target, dtype=np.float64), np.asarray(propensities, dtype=np.float64)
    if not ((propensities > 0) & (propensities <= 1)).all():
        raise ValueError("propensities must lie in (0, 1]: an action without one was never on offer")
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError("target probabilities must lie in [0, 1]")
    ratio: Array = target / propensities
    return ratio if clip is None else np.minimum(ratio, clip)


def effective_sample_size(w: Array) -> float:
    """(sum w)^2 / sum w^2: the number of weights where all are equal, 1 where one has everything.

    >>> effective_sample_size(np.array([1.0, 1.0])), effective_sample_size(np.array([4.0, 0.0]))
    (2.0, 1.0)
    """
    square = float((np.asarray(w) ** 2).sum())
    return float(np.asarray(w).sum()) ** 2 / square if square > 0 else 0.0


def ips(
    rewards: Array, target: Array, propensities: Array, *, clip: float | None = None, groups: Array | None = None
) -> Estimate:
    """Inverse propensity scoring: the mean of weight times reward. Unbiased without a clip, and restless.

    Args:
        rewards: [S], such as 1 where the slot got positive feedback.
        target: see `weights`.
        propensities: see `weights`.
        clip: see `weights`.
        groups: [S], slate of each slot, whose slots do not vary independently; None takes every slot for itself.

    >>> ips(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.25, 0.75])).value
    1.0
    """
    w = weights(target, propensities, clip)
    terms = w * np.asarray(rewards, dtype=np.float64)
    return _estimate(terms, w, target, propensities, clip, groups)


def snips(
    rewards: Array, target: Array, propensities: Array, *, clip: float | None = None, groups: Array | None = None
) -> Estimate:
    """Self-normalised IPS: the mean of the rewards, weighted. A little biased, steadier, and never out of range.

    The standard error is that of the ratio by the delta method. See `ips` for the arguments.

    >>> snips(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.25, 0.75])).value
    0.75
    """
    w = weights(target, propensities, clip)
    total = float(w.sum())
    if total == 0:
        return Estimate(float("nan"), float("nan"), 0.0, len(w), 0.0)
    value = float(w @ np.asarray(rewards, dtype=np.float64)) / total
    residuals = w * (np.asarray(rewards, dtype=np.float64) - value) / (total / len(w))
    around = _estimate(residuals, w, target, propensities, clip, groups)
    return Estimate(value, around.standard_error, around.effective_sample_size, around.slots, around.clipped)


def doubly_robust(
    rewards: Array,
    target: Array,
    propensities: Array,
    predicted: Array,
    expected: Array,
    *,
    clip: float | None = None,
    groups: Array | None = None,
) -> Estimate:
    """Doubly robust: a reward model's expectation under the target, corrected where the log shows it wrong.

    Right (on average) where either the propensities or the reward model are.

    Args:
        rewards: see `ips`.
        target: see `weights`.
        propensities: see `weights`.
        predicted: [S], the model's reward of the logged action.
        expected: [S], the model's mean reward over all actions of the slot under the target policy.
        clip: see `weights`.
        groups: see `ips`.

    >>> same = np.array([1.0, 1.0])
    >>> doubly_robust(np.array([1.0, 0.0]), same, same, np.array([0.5, 0.5]), np.array([0.5, 0.5])).value
    0.5
    """
    w = weights(target, propensities, clip)
    terms = np.asarray(expected, dtype=np.float64) + w * (
        np.asarray(rewards, dtype=np.float64) - np.asarray(predicted, dtype=np.float64)
    )
    return _estimate(terms, w, target, propensities, clip, groups)


def _estimate(
    terms: Array, w: Array, target: Array, propensities: Array, clip: float | None, groups: Array | None
) -> Estimate:
    count = len(terms)
    if count == 0:
        return Estimate(float("nan"), float("nan"), 0.0, 0, 0.0)
    value = float(terms.mean())
    sums: Array = terms - value
    if groups is not None:
        sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=sums)
    clusters = len(sums)
    spread = float((sums**2).sum()) * clusters / (clusters - 1) if clusters > 1 else float("nan")
    clipped = 0.0 if clip is None else float((np.asarray(target) / np.asarray(propensities) > clip).mean())
    return Estimate(value, float(np.sqrt(spread)) / count, effective_sample_size(w), count, clipped)
