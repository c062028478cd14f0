"""Fits the nested logit to what people chose among what was new to them, by maximum likelihood.

Steps follow BHHH (Berndt, Hall, Hall and Hausman 1974): the scores of the moments give gradient and curvature alike, so
that one pass over the moments is one step. Intervals are robust to several moments of one person (a sandwich over
people, Liang and Zeger 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from newfound.recommend.nested_logit import Coefficients
from newfound.types import Array, Bools, Doubles, Floats, Ints

STEPS: Final = 30
HALVINGS: Final = 8
TOLERANCE: Final = 1e-5  # of the log-likelihood a moment
PRIOR: Final = 1.0  # moments' worth of a normal prior around the ranker alone: it ends ties between equal terms


@dataclass(frozen=True)
class Moments:
    """Moments at which somebody chose an item of a new interest.

    Attributes:
        items: by term, [b, n] float32, items in nest order.
        clusters: by term, [b, N] float32.
        allowed: [b, n], what could have been shown: of new interests, and not consumed.
        targets: [b], the chosen item's column.
        users: [b], whose choice it was.
    """

    items: Mapping[str, Floats]
    clusters: Mapping[str, Floats]
    allowed: Bools
    targets: Ints
    users: Array


@dataclass(frozen=True)
class Estimate:
    """Fitted coefficients, and how sure they are.

    Attributes:
        coefficients: the maximum.
        intervals: by name, lower and upper bound.
        log_likelihood: a moment, at the maximum.
        moments: behind it.
        users: behind those.
    """

    coefficients: Coefficients
    intervals: dict[str, tuple[float, float]]
    log_likelihood: float
    moments: int
    users: int


def fit_nested_logit(
    batches: Callable[[], Iterable[Moments]],
    bounds: Ints,
    items: Sequence[str],
    clusters: Sequence[str],
    confidence: float = 0.95,
) -> Estimate:
    """Maximises the likelihood of the choices.

    Args:
        batches: gives the moments anew, as often as it is called, so that not all need be held at once.
        bounds: [N + 1], where each nest's items start and stop.
        items: names of the item terms; the first sets out with weight 1.
        clusters: names of the cluster terms.
        confidence: of the intervals.
    """
    names = [*items, *clusters, "dissimilarity"]
    theta = np.array([1.0 if name in ("ranker", "dissimilarity") else 0.0 for name in names])
    spread = _spreads(batches(), items, clusters)
    prior = PRIOR * spread**2
    centre = theta.copy()
    value, scores, users = _pass(batches(), bounds, items, clusters, theta)
    best = value.sum() - 0.5 * (prior * (theta - centre) ** 2).sum()
    for _ in range(STEPS):
        gradient = scores.sum(axis=0) - prior * (theta - centre)
        step = np.linalg.solve(scores.T @ scores + np.diag(prior), gradient)
        gain = 0.0
        for halving in range(HALVINGS):
            tried = theta + step / 2**halving
            tried[-1] = np.clip(tried[-1], 0.0, 2.0)
            value_there, scores_there, _ = _pass(batches(), bounds, items, clusters, tried)
            there = value_there.sum() - 0.5 * (prior * (tried - centre) ** 2).sum()
            if there > best:
                gain = there - best
                theta, best, value, scores = tried, there, value_there, scores_there
                break
        if gain < TOLERANCE * max(len(value), 1):
            break
    curvature = np.linalg.inv(scores.T @ scores + np.diag(prior))
    people, own = np.unique(users, return_inverse=True)
    sums = np.zeros((len(people), len(names)))
    np.add.at(sums, own, scores)
    errors = np.sqrt(np.maximum(np.diag(curvature @ (sums.T @ sums) @ curvature), 0.0))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * errors
    low, high = (theta - reach).tolist(), (theta + reach).tolist()
    weights = dict(zip(names, theta.tolist(), strict=True))
    return Estimate(
        Coefficients(
            items={name: weights[name] for name in items},
            clusters={name: weights[name] for name in clusters},
            dissimilarity=weights["dissimilarity"],
        ),
        {name: (low[at], high[at]) for at, name in enumerate(names)},
        float(value.mean()) if len(value) else 0.0,
        len(value),
        len(people),
    )


def log_likelihoods(batches: Iterable[Moments], bounds: Ints, coefficients: Coefficients) -> Doubles:
    """log P(chosen item) of every moment, float64; moments whose item could not have been shown are left out."""
    items, clusters = list(coefficients.items), list(coefficients.clusters)
    theta = np.array(
        [*coefficients.items.values(), *coefficients.clusters.values(), coefficients.dissimilarity], dtype=np.float64
    )
    return _pass(batches, bounds, items, clusters, theta)[0]


def _spreads(batches: Iterable[Moments], items: Sequence[str], clusters: Sequence[str]) -> Doubles:
    """Standard deviation of each term within a moment, on average; 1 for the dissimilarity."""
    total, count = np.zeros(len(items) + len(clusters)), 0
    for batch in batches:
        terms = [batch.items[name] for name in items] + [batch.clusters[name] for name in clusters]
        total += [np.std(term, axis=1).sum() for term in terms]
        count += len(batch.targets)
    return np.append(np.maximum(total / max(count, 1), 1e-3), 1.0)


def _pass(
    batches: Iterable[Moments], bounds: Ints, items: Sequence[str], clusters: Sequence[str], theta: Doubles
) -> tuple[Doubles, Doubles, Array]:
    """Log-likelihoods [M], scores [M, terms] and users [M] of all moments."""
    values, scores, users = [np.zeros(0)], [np.zeros((0, len(theta)))], []
    for batch in batches:
        held = batch.allowed[np.arange(len(batch.targets)), batch.targets]
        value, score = _scores(batch, bounds, items, clusters, theta)
        values.append(value[held])
        scores.append(score[held])
        users.append(np.asarray(batch.users)[held])
    return np.concatenate(values), np.concatenate(scores), np.concatenate(users) if users else np.zeros(0)


def _scores(
    batch: Moments, bounds: Ints, items: Sequence[str], clusters: Sequence[str], theta: Doubles
) -> tuple[Doubles, Doubles]:
    """log P of the chosen items [b], and its derivatives by theta [b, terms].

    With x the term's mean over a nest, weighted by P(i | c), the derivative by an item's weight is
    x_i + (lambda - 1) mean_c(i) - lambda sum of P(c) mean_c; by a cluster's weight z_c(i) - sum of P(c) z_c; and by
    lambda IV_c(i) - sum of P(c) IV_c.
    """
    rows, scale = np.arange(len(batch.targets)), float(theta[-1])
    full = np.flatnonzero(np.diff(bounds))
    starts = bounds[full]
    nest = np.repeat(np.arange(len(full)), np.diff(bounds)[full])
    utility = np.zeros(batch.allowed.shape, dtype=np.float32)
    for name, weight in zip(items, theta, strict=False):
        utility += np.float32(weight) * batch.items[name]
    utility[~batch.allowed] = -np.inf
    top = np.maximum.reduceat(utility, starts, axis=1)
    safe = np.where(np.isfinite(top), top, np.float32(0))
    share = np.exp(utility - safe[:, nest])  # P(i | c), unnormalised
    mass = np.add.reduceat(share, starts, axis=1).astype(np.float64)
    open_ = mass > 0
    inclusive = np.where(open_, np.log(np.where(open_, mass, 1.0)) + safe, 0.0)
    between = scale * inclusive
    for name, weight in zip(clusters, theta[len(items) :], strict=False):
        between = between + weight * batch.clusters[name][:, full]
    between = np.where(open_, between, -np.inf)
    highest = between.max(axis=1, keepdims=True)
    exponent = np.exp(between - highest)
    chance = exponent / exponent.sum(axis=1, keepdims=True)  # P(c)
    own = nest[batch.targets]
    with np.errstate(divide="ignore"):
        value = np.log(chance[rows, own]) + utility[rows, batch.targets] - inclusive[rows, own]
    score = np.zeros((len(rows), len(theta)))
    for at, name in enumerate(items):
        term = batch.items[name]
        mean = np.add.reduceat(share * term, starts, axis=1) / np.where(open_, mass, 1.0)
        score[:, at] = term[rows, batch.targets] + (scale - 1) * mean[rows, own] - scale * (chance * mean).sum(axis=1)
    for at, name in enumerate(clusters, start=len(items)):
        term = batch.clusters[name][:, full]
        score[:, at] = term[rows, own] - (chance * term).sum(axis=1)
    score[:, -1] = inclusive[rows, own] - (chance * inclusive).sum(axis=1)
    return value, score
