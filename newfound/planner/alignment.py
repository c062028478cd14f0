"""The second model: in this context, is this novel cluster enjoyed? (After arXiv 2504.05522.)

The planner says what people come to next; it learns from what they liked and says nothing about how often they did not.
This model learns from the signed engagement of *all* novel transitions. The planner proposes, it picks among the
proposals: the answer's format cannot break, since nothing but an order changes.

Enjoyment is additive: how much a cluster is enjoyed by those to whom it is new, plus what each interest of the context
adds, every estimate drawn towards the coarser one by as many imagined observations as validation users justify.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.types import Floats, Ints

FILE = "alignment.safetensors"
RECORD = "alignment.json"
PROPOSALS = 10
JUDGED = 1000  # moments of validation users by which the weight is chosen
PRIORS = (5.0, 20.0, 80.0)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Reactions:
    """Novel transitions with how they were received: contexts [T, K], labels [T], signed engagement [T]."""

    contexts: Ints
    labels: Ints
    engagement: Floats


class Alignment:
    """Expected signed engagement with a novel cluster, and how much it counts against the planner's log-probability.

    Args:
        level: [N], of each cluster where it is new.
        pull: [K, N, N], what an interest at a place of the context adds.
        weight: nats a unit of engagement; 0 leaves the planner's order as it is.
        clusters: digest of the clusters.
    """

    def __init__(self, level: Floats, pull: Floats, weight: float, clusters: str) -> None:
        self.level, self.pull, self.weight, self.clusters = level, pull, weight, clusters

    def enjoyment(self, contexts: Ints) -> Floats:
        """Expected engagement in [-1, 1], [B, N]; a context shorter than K counts as the last interests."""
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
        joined = values + self.weight * np.take_along_axis(self.enjoyment(contexts), best, axis=1)
        # Whatever this model says, be it not a number, what may not be answered stays behind what may.
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
            made = cls(arrays["level"], arrays["pull"], float(record["weight"]), str(record["clusters"]))
        except Exception as error:  # safetensors raises its own type, which is no public one
            raise DataError(str(folder), f"cannot be read ({error!r})", expected="an alignment model") from None
        if made.clusters != clusters.digest:
            raise VocabularyError(f"{folder / RECORD}: made for other clusters; expected those in use")
        return made


def fit_alignment(transitions: Path, clusters: Clusters, propose: Any) -> tuple[Alignment, dict[str, float]]:
    """Learns from training users' transitions; priors and weight are chosen on validation users.

    The priors are those that predict validation users' engagement best, the weight is the one under which what they
    enjoyed ranks best: the mean of engagement over rank, so that what was enjoyed more counts more.

    Args:
        transitions: folder of the mined transitions.
        propose: contexts [B, K] -> the planner's scores [B, N].

    Returns:
        The model and what it is worth on validation users.
    """
    file = transitions / "transitions.parquet"
    n = len(clusters.interface)
    train, held = read_reactions(file, clusters, "train"), read_reactions(file, clusters, "validation")
    best: tuple[float, Alignment] | None = None
    for level_prior, pull_prior in product(PRIORS, PRIORS):
        model = _fit(train, n, level_prior, pull_prior, clusters.digest)
        error = _error(model, held)
        if best is None or error < best[0]:
            best = (error, model)
    assert best is not None
    error, model = best
    baseline = float(np.mean((held.engagement - train.engagement.mean()) ** 2)) if len(held.labels) else 0.0
    liked = held.engagement > 0
    contexts, labels = held.contexts[liked], held.labels[liked]
    gains: dict[float, float] = {0.0: 0.0}
    if len(labels):
        chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:JUDGED])
        contexts, labels, weights = contexts[chosen], labels[chosen], held.engagement[liked][chosen]
        scores = propose(contexts)
        np.put_along_axis(scores, contexts, -np.inf, axis=1)
        for weight in WEIGHTS:
            model.weight = weight
            order = model.rerank(scores, contexts)
            truth = np.take_along_axis(order, labels[:, None], axis=1)
            ranks = (order >= truth).sum(1)
            gains[weight] = float((weights / ranks).mean())
        model.weight = max(WEIGHTS, key=lambda weight: (gains[weight], -weight))
    return model, {
        "alignment_weight": model.weight,
        "alignment_error": error,
        "alignment_error_without": baseline,
        "alignment_gain": gains[model.weight] - gains[0.0],
    }


def read_reactions(file: Path, clusters: Clusters, split: str) -> Reactions:
    """All novel transitions of one group of users, enjoyed or not, of contexts that are not withheld."""
    import pyarrow.parquet as pq

    table = pq.read_table(file, filters=[(schema.SPLIT, "=", split), (schema.HELD_OUT, "=", False)])
    contexts = [[clusters.index[c] for c in row] for row in table[schema.CONTEXT].to_pylist()]
    width = len(contexts[0]) if contexts else 1
    return Reactions(
        np.array(contexts, dtype=np.int64).reshape(-1, width),
        np.array([clusters.index[c] for c in table[schema.NEXT].to_pylist()], dtype=np.int64),
        table[schema.ENGAGEMENT].to_numpy().astype(np.float32),
    )


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
    expected = np.take_along_axis(model.enjoyment(data.contexts), data.labels[:, None], axis=1)[:, 0]
    return float(np.mean((data.engagement - expected) ** 2))
