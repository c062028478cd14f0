"""Alignment: a second model, of expected engagement with a novel cluster, that reorders the planner's proposals.

The planner says what people come to next; it learns from what they liked and says nothing about how often they did not.
This model learns from the signed engagement of *all* novel transitions (after arXiv 2504.05522, where a model of user
feedback chooses among what a language model proposes). The answer's format cannot break, since nothing but an order
changes.

Expected engagement is additive: a cluster's mean among those to whom it is new, plus what each interest of the context
adds, every estimate shrunk towards the coarser one by a number of imagined observations that is chosen on validation
users.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from newfound import measures
from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.transitions.artifact import Reactions, Transitions
from newfound.types import Floats, Ints

FILE = "alignment.safetensors"
RECORD = "alignment.json"
PROPOSALS = 10
WEIGHED = 1000  # transitions of validation users by which the weight is chosen
PRIORS = (5.0, 20.0, 80.0)  # imagined observations
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)  # nats a unit of engagement

Scorer = Callable[[Ints], Floats]
"""Contexts [B, K] as cluster indices -> scores [B, N]."""


class Alignment:
    """Expected signed engagement with a novel cluster, and its weight beside the planner's log-probability.

    Args:
        level: [N], mean engagement with each cluster where it is new.
        pull: [K, N, N], what an interest at a place of the context adds: place, interest, novel cluster.
        weight: nats a unit of engagement; 0 leaves the planner's order as it is.
        clusters: digest of the clusters.
    """

    def __init__(self, level: Floats, pull: Floats, weight: float, clusters: str) -> None:
        self.level, self.pull, self.weight, self.clusters = level, pull, weight, clusters

    def expected_engagement(self, contexts: Ints) -> Floats:
        """[B, N] in [-1, 1]; a context shorter than K counts as the last interests."""
        first = len(self.pull) - contexts.shape[1]
        out = np.tile(self.level, (len(contexts), 1))
        for place in range(contexts.shape[1]):
            out += self.pull[first + place][contexts[:, place]]
        clipped: Floats = np.clip(out, -1, 1)
        return clipped

    def rerank(self, scores: Floats, contexts: Ints, proposals: int = PROPOSALS) -> Floats:
        """Scores whose best `proposals` are in the order of both models; everything else stays where it was.

        Args:
            scores: [B, N] log-probabilities, minus infinity where a cluster may not be answered.
            contexts: [B, K].
        """
        proposals = min(proposals, scores.shape[1])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :proposals]
        values = np.take_along_axis(scores, best, axis=1)
        joined = values + self.weight * np.take_along_axis(self.expected_engagement(contexts), best, axis=1)
        # What may not be answered stays behind what may, even where this model's values are not numbers.
        joined = np.nan_to_num(joined, nan=float(np.finfo(np.float32).min))
        joined[np.isneginf(values)] = -np.inf
        order = np.argsort(-joined, axis=1, kind="stable")
        out = scores.copy()
        # The proposals keep their values; who has which follows the joint order, so nothing outside is overtaken.
        np.put_along_axis(out, np.take_along_axis(best, order, axis=1), values, axis=1)
        return out

    def save(self, folder: Path) -> None:
        """Writes `alignment.safetensors`, then `alignment.json`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"level": self.level, "pull": self.pull}, folder / FILE)
        record = {"clusters": self.clusters, "weight": self.weight}
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, clusters: Clusters) -> Alignment:
        """Reads a folder.

        Raises:
            DataError: a file is missing or broken.
            VocabularyError: it was made for other clusters.
        """
        from safetensors.numpy import load_file

        try:
            record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            arrays = load_file(folder / FILE)
            model = cls(arrays["level"], arrays["pull"], float(record["weight"]), str(record["clusters"]))
        except Exception as error:  # safetensors raises its own type, which is no public one
            raise DataError(str(folder), f"cannot be read ({error!r})", expected="an alignment model") from None
        if model.clusters != clusters.digest:
            raise VocabularyError(f"{folder / RECORD}: made for other clusters; expected those in use")
        return model


def fit_alignment(transitions: Transitions, score: Scorer) -> tuple[Alignment, dict[str, float]]:
    """Learns from training users' transitions; priors and weight are chosen on validation users.

    The priors are those that predict validation users' engagement best; see `_choose_weight` for the weight.

    Args:
        transitions: the mined ones.
        score: the planner's.

    Returns:
        The model and its measures on validation users.
    """
    n, digest = len(transitions.clusters.interface), transitions.clusters.digest
    train, held = transitions.reactions("train"), transitions.reactions("validation")
    fits = (_fit(train, n, level, pull, digest) for level, pull in product(PRIORS, PRIORS))
    error, model = min(((_error(model, held), model) for model in fits), key=lambda fit: fit[0])
    baseline = float(np.mean((held.engagement - train.engagement.mean()) ** 2)) if len(held.labels) else 0.0
    gain = _choose_weight(model, held, score)
    return model, {
        "alignment_weight": model.weight,
        "alignment_error": error,
        "alignment_error_without": baseline,
        "alignment_gain": gain,
    }


def _choose_weight(model: Alignment, held: Reactions, score: Scorer) -> float:
    """Sets the weight under which what people enjoyed ranks best; returns what it adds to no weight at all.

    The measure is the mean of engagement times reciprocal rank, so that what was enjoyed more counts more. Equal scores
    rank by index, as everywhere (`measures.ranks_of`).
    """
    liked = np.flatnonzero(held.engagement > 0)
    if not len(liked):
        return 0.0
    chosen = liked[np.sort(np.random.default_rng(0).permutation(len(liked))[:WEIGHED])]
    contexts, labels, engagement = held.contexts[chosen], held.labels[chosen], held.engagement[chosen]
    scores = score(contexts)
    np.put_along_axis(scores, contexts, -np.inf, axis=1)
    gains: dict[float, float] = {}
    for weight in WEIGHTS:
        model.weight = weight
        ranks = measures.ranks_of(model.rerank(scores, contexts), labels)
        gains[weight] = float((engagement * measures.reciprocal_ranks(ranks, scores.shape[1])).mean())
    model.weight = max(WEIGHTS, key=lambda weight: (gains[weight], -weight))
    return gains[model.weight] - gains[0.0]


def _fit(data: Reactions, n: int, level_prior: float, pull_prior: float, digest: str) -> Alignment:
    everywhere = float(data.engagement.mean()) if len(data.engagement) else 0.0
    total = np.bincount(data.labels, weights=data.engagement, minlength=n)
    level = (total + level_prior * everywhere) / (np.bincount(data.labels, minlength=n) + level_prior)
    left = data.engagement - level[data.labels]
    width = data.contexts.shape[1]
    pull = np.zeros((width, n, n))
    for place in range(width):
        sums, counts = np.zeros((n, n)), np.zeros((n, n))
        np.add.at(sums, (data.contexts[:, place], data.labels), left)
        np.add.at(counts, (data.contexts[:, place], data.labels), 1.0)
        pull[place] = sums / (counts + pull_prior) / width
    return Alignment(level.astype(np.float32), pull.astype(np.float32), 0.0, digest)


def _error(model: Alignment, data: Reactions) -> float:
    """Mean squared error of the expected engagement."""
    if not len(data.labels):
        return 0.0
    expected = np.take_along_axis(model.expected_engagement(data.contexts), data.labels[:, None], axis=1)[:, 0]
    return float(np.mean((data.engagement - expected) ** 2))
