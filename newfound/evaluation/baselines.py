"""Baselines of the planner: the same training transitions, the same moments, tuned on validation users only.

Each scores every cluster for every event, [B, N], higher is better; taking the user's history out is left to the
measure. A baseline's choices (smoothing, pooling) are made by the mean reciprocal rank on validation users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol

import numpy as np

from newfound.clusters import Clusters
from newfound.evaluation.end_to_end import Catalogue, ItemScorer, scored
from newfound.evaluation.moments import Events
from newfound.measures import mean_reciprocal_rank, ranks_of
from newfound.transitions.artifact import Counts
from newfound.transitions.choice_model import Choices, fit_choices
from newfound.transitions.frequency_model import Backoff, FrequencyModel
from newfound.types import Context, Ints, Reals


class Scorer(Protocol):
    """Anything that ranks the clusters at a moment."""

    def scores(self, events: Events) -> Reals:
        """[B, N], higher is better."""


@dataclass(frozen=True)
class Baseline:
    """A baseline as tuned: what was chosen, out of what, and what it saw.

    Attributes:
        name: in metrics.json, behind `rival.`.
        label: in the report.
        reads_context: whether another context changes its answers; else it reads the history alone, or nothing.
    """

    name: str
    label: str
    scorer: Scorer
    reads_context: bool = False
    chosen: dict[str, Any] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    sees: str = "training transitions"


def _indices(contexts: Sequence[Context], order: Sequence[str]) -> Ints:
    index = {cluster: at for at, cluster in enumerate(order)}
    width = max((len(context) for context in contexts), default=1)
    return np.array([[index[c] for c in context] for context in contexts], dtype=np.int64).reshape(-1, width)


class Teacher:
    """The choice model whose distributions the planner is taught, without any language model.

    Without `kinship` it knows of two clusters only what the choices tell.
    """

    def __init__(self, choices: Choices, seed: int, *, penalty: float, epochs: int, kinship: bool) -> None:
        self._model = fit_choices(choices if kinship else replace(choices, kinship=None), penalty, epochs, seed)

    def scores(self, events: Events) -> Reals:
        return self._model.scores(_indices(events.contexts, events.journeys.order))


class RandomNovel:
    """A seeded blind draw: what chance looks like in practice."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def scores(self, events: Events) -> Reals:
        n = len(events.journeys.order)
        return np.stack([np.random.default_rng([self._seed, int(e)]).random(n) for e in events.at])


class Popular:
    """The most popular novel cluster: how often each cluster is the next novel one."""

    def __init__(self, counts: Counts) -> None:
        self._scores = counts.frequency.astype(np.float64)

    def scores(self, events: Events) -> Reals:
        return np.tile(self._scores, (len(events), 1))


class PairFrequency:
    """The frequency model that the table falls back on, with its back-off weights chosen here."""

    def __init__(self, counts: Counts, *, context: float, single: float) -> None:
        self._model = FrequencyModel(counts.contexts, counts.labels, counts.n, backoff=Backoff(context, single))

    def scores(self, events: Events) -> Reals:
        return self._model.distribution(_indices(events.contexts, events.journeys.order))


class Nearest:
    """The nearest clusters by embedding: cosine of the clusters' vectors to the context's."""

    def __init__(self, clusters: Clusters, *, pool: str) -> None:
        vectors = np.asarray(clusters.interface_vectors, dtype=np.float64)
        vectors = vectors - vectors.mean(axis=0)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self._cosine, self._pool = unit @ unit.T, pool

    def scores(self, events: Events) -> Reals:
        near = self._cosine[_indices(events.contexts, events.journeys.order)]  # [B, K, N]
        pooled: Reals = near[:, -1] if self._pool == "last" else getattr(near, self._pool)(axis=1)
        return pooled


def tune(
    name: str,
    label: str,
    make: Callable[..., Scorer],
    space: dict[str, Sequence[Any]],
    validation: Events,
    *,
    reads_context: bool = False,
    sees: str = "training transitions",
) -> Baseline:
    """Tries every combination of the space on validation users; the best mean reciprocal rank wins, first of equals.

    Without validation events the first combination is taken as it stands.
    """
    tried: list[dict[str, Any]] = []
    best: tuple[float, dict[str, Any], Scorer] | None = None
    for values in product(*space.values()):
        chosen = dict(zip(space, values, strict=True))
        scorer = make(**chosen)
        value = -1.0
        if len(validation):
            ranks = ranks_of(scorer.scores(validation), validation.labels, validation.seen)
            value = mean_reciprocal_rank(ranks, len(validation.journeys.order))
        tried.append({**chosen, "mrr": round(value, 6)})
        if best is None or value > best[0]:
            best = (value, chosen, scorer)
        if not len(validation):
            break
    assert best is not None
    return Baseline(name, label, best[2], reads_context, best[1], tried, sees)


def pair_frequency_baseline(counts: Counts, validation: Events) -> Baseline:
    """Pair frequency, `chosen` being the weights of its back-off."""
    weights = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    return tune(
        "pair_frequency",
        "Pair frequency, backed off",
        lambda **c: PairFrequency(counts, **c),
        {"context": weights, "single": weights},
        validation,
        reads_context=True,
    )


def simple_baselines(counts: Counts, clusters: Clusters, validation: Events, seed: int) -> list[Baseline]:
    """The baselines that need nothing but transitions and cluster vectors."""
    return [
        Baseline("random_novel", "Random novel", RandomNovel(seed), sees="nothing"),
        Baseline("most_popular", "Most popular novel cluster", Popular(counts)),
        pair_frequency_baseline(counts, validation),
        tune(
            "nearest_embedding",
            "Nearest by embedding",
            lambda **c: Nearest(clusters, **c),
            {"pool": ("mean", "max", "last")},
            validation,
            reads_context=True,
            sees="cluster vectors",
        ),
    ]


class RankerNovel:
    """The item policy itself: each cluster is worth what its items score, from the very history of the moment.

    It sees more than the planner does: everybody's past rather than the training users', and the whole history rather
    than two interests.

    Args:
        item_scores: of the ranker, by cluster.
        pool: `max`, `logsumexp`, or `mean` of the five best.
    """

    def __init__(self, item_scores: ClusterPools, *, pool: str) -> None:
        self._pools, self._pool = item_scores, pool

    def scores(self, events: Events) -> Reals:
        return self._pools.of(events)[self._pool]


class ClusterPools:
    """Item scores gathered by cluster in several ways, computed once for each set of moments."""

    NAMES = ("max", "logsumexp", "mean")

    def __init__(self, ranker: ItemScorer, catalogue: Catalogue) -> None:
        self._ranker, self._catalogue = ranker, catalogue
        self._known: dict[tuple[int, bytes], dict[str, Reals]] = {}

    def of(self, events: Events) -> dict[str, Reals]:
        """By name of the pooling, [B, N]; minus infinity for a cluster without an item to show."""
        key = (id(events.journeys), events.at.tobytes())
        if key not in self._known:
            shape = (len(events), self._catalogue.n)
            pools = {name: np.full(shape, -np.inf, dtype=np.float32) for name in self.NAMES}
            for rows, scores in scored(self._ranker, self._catalogue, events):
                for cluster, members in enumerate(self._catalogue.members):
                    if not len(members):
                        continue
                    inside = scores[:, members]
                    top = inside.max(axis=1)
                    safe = np.where(np.isfinite(top), top, 0)[:, None]
                    with np.errstate(divide="ignore"):
                        pools["logsumexp"][rows, cluster] = np.log(np.exp(inside - safe).sum(axis=1)) + safe[:, 0]
                    pools["max"][rows, cluster] = top
                    best = -np.sort(-inside, axis=1)[:, :5]
                    count = np.maximum(np.isfinite(best).sum(axis=1), 1)
                    total = np.where(np.isfinite(best), best, 0).sum(axis=1)
                    pools["mean"][rows, cluster] = np.where(np.isfinite(top), total / count, -np.inf)
            self._known[key] = pools
        return self._known[key]


def teacher_baseline(
    choices: Choices,
    validation: Events,
    seed: int,
    epochs: int,
    penalties: Sequence[float] = (1.5, 6.0, 12.0),
) -> Baseline:
    """The planner's teacher on its own, its penalty chosen on validation users, and whether kinship helps it."""
    space: dict[str, Sequence[Any]] = {"penalty": penalties, "epochs": (epochs,), "kinship": (True, False)}
    return tune(
        "choice_model",
        "Choice model, the planner's teacher",
        lambda **c: Teacher(choices, seed, **c),
        space,
        validation,
        reads_context=True,
        sees="training transitions and cluster vectors",
    )


def ranker_baseline(ranker: ItemScorer, catalogue: Catalogue, validation: Events) -> Baseline:
    """The decisive one: the ranker restricted to never-consumed clusters, its pooling chosen on validation users."""
    pools = ClusterPools(ranker, catalogue)
    return tune(
        "ranker_novel",
        "Ranker, never-consumed clusters",
        lambda **c: RankerNovel(pools, **c),
        {"pool": ClusterPools.NAMES},
        validation,
        sees="everybody's past, the whole history",
    )
