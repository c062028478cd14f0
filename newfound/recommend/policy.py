"""Request-time rules: which interests somebody has, which contexts they make, how many slots are novel.

Everything here is pure: no I/O, no clock, and every random choice comes from the generator that is passed in. Serving,
batch and evaluation share it, so that contexts at test are made the way serving makes them. `decision.py` asks planner
and ranker by these rules, and `slate.py` puts items into the slots.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, permutations

import numpy as np

from newfound.config import PolicyConfig
from newfound.types import Context


class Reason(StrEnum):
    """Why a slot holds what it holds.

    TABLE, PLANNER and FREQUENCY: the item would not be there without what the planner says of the user's interests, by
    its table, by a live answer, or by pair frequencies where there is no language model. RANKER: the item would be
    there without it. POPULAR: nothing else was at hand.
    """

    TABLE = "table"
    PLANNER = "planner"
    FREQUENCY = "frequency"
    RANKER = "ranker"
    POPULAR = "popular"
    EXPLORATION = "exploration"
    FAMILIAR = "familiar"


class Kind(StrEnum):
    """A novel slot shows a cluster that was never consumed; a familiar slot one of the user's interests."""

    FAMILIAR = "familiar"
    NOVEL = "novel"


@dataclass(frozen=True, slots=True)
class Past:
    """A history read with one release's clusters: events oldest first, parallel sequences.

    `clusters` holds None where the release does not know the item. `seen` is every cluster in the whole look-back,
    positive or not; it may hold more than `clusters` does, where the history was cut to its last events.
    """

    clusters: Sequence[str | None]
    engagements: Sequence[float]
    positives: Sequence[bool]
    seen: frozenset[str]


@dataclass(frozen=True, slots=True)
class Interest:
    """A cluster that the user liked, with its weight in the sampling of contexts."""

    cluster: str
    weight: float


def make_past(
    clusters: Sequence[str | None],
    engagements: Sequence[float],
    positives: Sequence[bool],
    seen_before: Collection[str] = (),
) -> Past:
    """Joins events with the clusters that were seen before the oldest of them."""
    return Past(clusters, engagements, positives, frozenset(c for c in clusters if c is not None) | set(seen_before))


def interests(past: Past, config: PolicyConfig) -> list[Interest]:
    """The most recent unique clusters with positive events, most recent last.

    The weight is ``2 ** (-age / recency_half_life)``, where age counts positions among these interests from the most
    recent, times the mean engagement of the cluster's positive events since the oldest of these interests began to
    matter (at least .01, so that no interest vanishes).
    """
    sums: dict[str, list[float]] = {}
    for at in range(len(past.clusters) - 1, -1, -1):
        cluster = past.clusters[at]
        if cluster is None or not past.positives[at]:
            continue
        if cluster not in sums:
            if len(sums) == config.recent_clusters:
                break
            sums[cluster] = [0.0, 0.0]
        sums[cluster][0] += float(past.engagements[at])
        sums[cluster][1] += 1.0
    found = [
        Interest(cluster, 2.0 ** (-age / config.recency_half_life) * max(total / count, 0.01))
        for age, (cluster, (total, count)) in enumerate(sums.items())
    ]
    return found[::-1]


def context_distribution(found: Sequence[Interest], size: int) -> list[tuple[Context, float]]:
    """Every context of some interests, with its probability; the probabilities sum to 1.

    Interests are drawn one after the other without replacement, each in proportion to its weight, and then put in
    the order in which they were last active, oldest first, as the transitions are mined. So a set's probability is the
    sum over the orders in which it could have been drawn (Plackett-Luce).

    Args:
        found: as `interests` returns them, most recent last.
        size: interests in a context (K). With fewer interests the context is shorter; without any it is empty.
    """
    if len(found) <= size:
        return [(tuple(interest.cluster for interest in found), 1.0)]
    total = math.fsum(interest.weight for interest in found)
    distribution = []
    for chosen in combinations(found, size):
        probability = 0.0
        for order in permutations(chosen):
            left, product = total, 1.0
            for interest in order:
                product *= interest.weight / left
                left -= interest.weight
            probability += product
        distribution.append((tuple(interest.cluster for interest in chosen), probability))
    return distribution


def sample_context(distribution: Sequence[tuple[Context, float]], rng: np.random.Generator) -> int:
    """Draws one context; returns its position in the distribution. Uses exactly one number of the generator."""
    point = rng.random() * math.fsum(probability for _, probability in distribution)
    for at, (_, probability) in enumerate(distribution):
        point -= probability
        if point < 0:
            return at
    return len(distribution) - 1


def novel_appetite(past: Past, config: PolicyConfig) -> float:
    """The share of a slate that should be novel for this user.

    Of the user's last `appetite_window` positive events, the share that opened a cluster for the first time, shrunk
    towards `novel_share` with the weight of `appetite_prior` events, and kept within `novel_share_bounds`.
    """
    known: set[str] = set()
    opened: list[bool] = []
    for cluster, positive in zip(past.clusters, past.positives, strict=True):
        if cluster is None:
            continue
        if positive:
            opened.append(cluster not in known)
        known.add(cluster)
    recent = opened[-config.appetite_window :]
    share = (sum(recent) + config.appetite_prior * config.novel_share) / (len(recent) + config.appetite_prior)
    low, high = config.novel_share_bounds
    return min(max(share, low), high)


def novel_quota(past: Past, k: int, novel: int | float | None, config: PolicyConfig) -> int:
    """Number of novel slots among k.

    Args:
        past: the user's past; asked for the appetite when the request does not say.
        k: slots in the slate.
        novel: a number of slots (int), a share of the slate (float), or None for the user's appetite.
    """
    if novel is None:
        novel = float(novel_appetite(past, config))
    slots = novel if isinstance(novel, int) else math.floor(novel * k + 0.5)
    return min(max(slots, 0), k)


def novel_positions(k: int, slots: int) -> list[int]:
    """Positions (from 0) of the novel slots: spread evenly, never bunched at either end."""
    return [math.floor((at + 0.5) * k / slots) for at in range(slots)]


def draw_explored(
    eligible: Sequence[str], slots: int, exploration: float, rng: np.random.Generator
) -> list[str | None]:
    """For each novel slot, the cluster that exploration gives it, or None where the slot is decided.

    Args:
        eligible: the clusters that may be novel, in a fixed order.
        slots: novel slots.
        exploration: each slot's chance of a uniform draw, in [0, 1].
        rng: two numbers a slot are drawn from it, whatever the outcome.
    """
    drawn: list[str | None] = []
    for _ in range(slots):
        explores, place = rng.random() < exploration, rng.random()
        drawn.append(eligible[int(place * len(eligible))] if explores and eligible else None)
    return drawn


def familiar_probability(
    cluster: str, best: str, open_clusters: Collection[str], drawn_from: int, explore: float
) -> float:
    """Probability that a familiar slot shows `cluster`, given the slots before it.

    The slot shows the best remaining item of all interests, or, with probability `explore`, the best of an interest
    drawn uniformly from `drawn_from` interests; an interest with nothing left falls back to the best item.

    Args:
        cluster: the cluster shown.
        best: cluster of the best remaining item.
        open_clusters: interests with an item left, `best` and `cluster` among them.
        drawn_from: interests that exploration draws from, the exhausted ones included.
        explore: in [0, 1].
    """
    if cluster != best:
        return explore / drawn_from
    return min(1 - explore + explore * (drawn_from - len(open_clusters) + 1) / drawn_from, 1.0)
