"""Arms of the closed loop that need no model of their own: what may fill the novel slots of a slate.

All share one ranker, its slots and its schedule; they differ in how novel slots are decided. An arm gives utilities of
items, of interests, or both; the loop shows the best item of each of the best interests that are new to a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from newfound.simulation.journal import Journal, contexts_of
from newfound.simulation.linear_ranker import LinearRanker
from newfound.transitions.frequency_model import FrequencyModel
from newfound.types import Array, Bools, Floats, Ints


@dataclass(frozen=True)
class Knowledge:
    """An arm's knowledge of a world before its first day, the same for all.

    Attributes:
        vectors: [C, dim], of the interests' descriptions.
        language: [C, C, C], the language planner's log-probabilities: older, newer, next; None where it is not asked.
        teacher: likewise, of the choice model that taught it.
        themes: [C], the interest's parent in the tree.
    """

    vectors: Floats
    themes: Ints
    language: Floats | None = None
    teacher: Floats | None = None


@dataclass(frozen=True)
class Offer:
    """An arm's view of the items and interests that are new to people.

    Attributes:
        items: [U, n], utilities within an interest.
        clusters: [U, C], utilities of interests; None: that of the best item.
    """

    items: Floats
    clusters: Floats | None = None


class Arm(Protocol):
    """Chooser of novel slots. `explores` is false for the ranker alone, which has none."""

    explores: bool

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        """Learns from the arm's own log."""

    def offer(self, journal: Journal, scores: Floats, allowed: Bools, generator: np.random.Generator) -> Offer:
        """Utilities for everybody.

        Args:
            scores: [U, n], the ranker's.
            allowed: [U, C], interests that are new and have an item to show.
        """


class RankerAlone:
    """The ranker's best items of all interests; no slot is set aside."""

    explores = False

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        pass

    def offer(self, journal: Journal, scores: Floats, allowed: Bools, generator: np.random.Generator) -> Offer:
        return Offer(scores)


class RankerDirect(RankerAlone):
    """The ranker's best items of new interests."""

    explores = True


class ClusterArm:
    """An arm that orders interests; the ranker chooses the items."""

    explores = True

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        pass

    def offer(self, journal: Journal, scores: Floats, allowed: Bools, generator: np.random.Generator) -> Offer:
        return Offer(scores, self.order(journal, allowed, generator))

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        """Utilities of interests, [U, C]."""
        raise NotImplementedError


class RandomNovel(ClusterArm):
    """Any new interest."""

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        return generator.random(allowed.shape).astype(np.float32)


class PopularNovel(ClusterArm):
    """The interests that most people like."""

    def __init__(self) -> None:
        self._people: Floats = np.zeros(0, dtype=np.float32)

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        self._people = journal.known.sum(axis=0).astype(np.float32)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        return np.broadcast_to(self._people, allowed.shape)


class PairFrequency(ClusterArm):
    """Frequencies after pairs of recent interests in the log, with back-off."""

    def __init__(self) -> None:
        self._table: Floats = np.zeros(0, dtype=np.float32)

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        self._table = pair_table(journal)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        return pool_pairs(self._table, journal.recent(np.arange(journal.people), 5), allowed)


class NearestNovel(ClusterArm):
    """The interests whose descriptions are nearest to those of the recent ones.

    Args:
        knowledge: with the descriptions' vectors.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        vectors = knowledge.vectors - knowledge.vectors.mean(axis=0)
        self._unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        recent = journal.recent(np.arange(journal.people), 5)
        weights = np.where(recent >= 0, 2.0 ** (-np.arange(5) / 2), 0.0)
        profile = (weights[:, :, None] * self._unit[np.maximum(recent, 0)]).sum(axis=1)
        found: Floats = (profile @ self._unit.T).astype(np.float32)
        return found


class Oracle(ClusterArm):
    """Knows the truth: the planted effect that the experiment has to find, diluted by a share of random choices.

    Args:
        likings: gives the true probabilities to enjoy each item, [U, n].
        share: of decisions that it makes; the others are random.
    """

    def __init__(self, likings: Callable[[], Floats], share: float) -> None:
        self._likings, self._share = likings, share

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        truth = best_of_each(self._likings(), allowed.shape[1])
        knows = generator.random((len(allowed), 1)) < self._share
        return np.where(knows, truth, generator.random(allowed.shape)).astype(np.float32)


def pair_table(journal: Journal) -> Floats:
    """Log-probabilities of the next interest by pair frequencies with back-off, [C, C, C]."""
    choices = journal.choices()
    whole = choices.recent[:, 1] >= 0
    contexts = choices.recent[whole][:, [1, 0]]
    model = FrequencyModel(contexts, journal.cluster_of[choices.items[whole]], journal.clusters)
    n = journal.clusters
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=2).reshape(-1, 2)
    found: Floats = np.log(np.maximum(model.distribution(pairs), 1e-9)).reshape(n, n, n)
    return found


def pool_pairs(table: Floats, recent: Ints, allowed: Bools) -> Floats:
    """`nested_logit.pooled` for many people at once: a log-opinion pool over pairs of recent interests, [B, C].

    Args:
        table: [C, C, C], log-probabilities: older, newer, next.
        recent: [B, R], the latest first, -1 where there are fewer.
        allowed: [B, C].
    """
    pairs, weights = contexts_of(recent)
    rows = np.where(allowed[:, None, :], table[pairs[..., 0], pairs[..., 1]], -np.inf)
    top = rows.max(axis=2, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = rows - top - np.log(np.exp(rows - top).sum(axis=2, keepdims=True))
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    mixed = np.einsum("bp,bpc->bc", share, np.where(allowed[:, None, :], rows, 0.0))
    found: Floats = np.where(allowed, mixed, 0.0).astype(np.float32)
    return found


def best_of_each(values: Array, clusters: int) -> Floats:
    """The best item's value of each interest, [U, C]; items of an interest stand together, all of one number."""
    found: Floats = values.reshape(len(values), clusters, -1).max(axis=2)
    return found


SIMPLE: Mapping[str, Callable[[Knowledge], Arm]] = {
    "ranker": lambda knowledge: RankerAlone(),
    "ranker_direct": lambda knowledge: RankerDirect(),
    "random_novel": lambda knowledge: RandomNovel(),
    "popular_novel": lambda knowledge: PopularNovel(),
    "pair_frequency": lambda knowledge: PairFrequency(),
    "nearest": NearestNovel,
}
