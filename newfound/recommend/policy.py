"""Request-time decisions: which interests are sampled, which novel clusters follow, and with what probability.

Everything here is pure: no I/O, no clock, and every random choice comes from the generator that is passed in. Serving,
batch and evaluation share it, so that contexts at test are made the way serving makes them. `slate.py` then puts items
into the slots that are planned here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, permutations

import numpy as np

from newfound.config import PolicyConfig
from newfound.types import Context

"""Interests, oldest first; shorter than K where a user has fewer, empty where they have none."""


class Reason(StrEnum):
    """Why a slot holds what it holds: the step of the back-off that filled it."""

    TABLE = "table"
    PLANNER = "planner"
    PARENT = "parent"
    FREQUENCY = "frequency"
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


@dataclass(frozen=True, slots=True)
class Choice:
    """A novel cluster that follows a context, and the step of the back-off that it comes from."""

    cluster: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Option:
    """A context that could have been sampled, its probability, and its novel clusters, best first."""

    context: Context
    probability: float
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class NovelSlot:
    """The cluster of one novel slot.

    `propensity` is the probability of (slot, cluster); `candidates` has it for every cluster above the uniform floor,
    and every other eligible cluster has `floor`.
    """

    cluster: str
    reason: Reason
    context: Context
    propensity: float
    candidates: Mapping[str, float]
    floor: float


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
    """Every context that `sample_context` may draw, with its probability; the probabilities sum to 1.

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
    """How many of k slots are novel.

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


def rank_choices(
    steps: Iterable[tuple[Reason, Iterable[str]]], eligible: Collection[str], slots: int
) -> tuple[Choice, ...]:
    """The first `slots` distinct eligible clusters, going down the back-off.

    Args:
        steps: the back-off in order: a reason code and its clusters, best first; read no further than needed.
        eligible: clusters that may be shown as novel: never consumed, and with an item left to show.
        slots: clusters wanted; fewer come back where the steps run dry.
    """
    taken: dict[str, Reason] = {}
    for reason, clusters in steps:
        for cluster in clusters:
            if len(taken) >= slots:
                return _choices(taken)
            if cluster in eligible and cluster not in taken:
                taken[cluster] = reason
    return _choices(taken)


def _choices(taken: Mapping[str, Reason]) -> tuple[Choice, ...]:
    return tuple(Choice(cluster, reason) for cluster, reason in taken.items())


def choose_novel(
    options: Sequence[Option],
    sampled: int,
    eligible: Sequence[str],
    slots: int,
    exploration: float,
    rng: np.random.Generator,
) -> list[NovelSlot]:
    """Gives each novel slot its cluster, with the exact probability of that choice.

    Slot s holds the sampled context's choice number s, or, with probability `exploration` (independently for each
    slot) and wherever the choices run dry, a cluster drawn uniformly from the eligible ones. Its propensity is
    therefore ``(1 - exploration) * sum of P(context) over contexts whose choice s is that cluster + uniform part``,
    summed over all options. Where a context's answer was not at hand and had to be asked for, pass that option alone:
    the propensity is then conditional on the context, which leaves importance weighting unbiased.

    Args:
        options: the contexts that could have been sampled; their probabilities are normalised to sum to 1.
        sampled: position of the context that was sampled.
        eligible: the clusters that may be novel, in a fixed order, at least one; each choice must be among them.
        slots: novel slots to fill. Two slots share a cluster only where exploration drew it twice.
        exploration: in [0, 1].
        rng: two numbers a slot are drawn from it, whatever the outcome.
    """
    total = math.fsum(option.probability for option in options)
    own = options[sampled]
    planned = []
    for slot in range(slots):
        listed: dict[str, float] = {}
        dry = 0.0
        for option in options:
            probability = option.probability / total
            if slot < len(option.choices):
                cluster = option.choices[slot].cluster
                listed[cluster] = listed.get(cluster, 0.0) + (1 - exploration) * probability
            else:
                dry += (1 - exploration) * probability
        floor = min((exploration + dry) / len(eligible), 1.0)
        # Sums of floats may end a little above 1, which no probability may.
        candidates = {cluster: min(probability + floor, 1.0) for cluster, probability in listed.items()}
        explores, drawn = rng.random() < exploration, eligible[int(rng.random() * len(eligible))]
        from_context = not explores and slot < len(own.choices)
        choice = own.choices[slot] if from_context else Choice(drawn, Reason.EXPLORATION)
        planned.append(
            NovelSlot(
                cluster=choice.cluster,
                reason=choice.reason,
                context=own.context,
                propensity=candidates.get(choice.cluster, floor),
                candidates=candidates,
                floor=floor,
            )
        )
    return planned


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
