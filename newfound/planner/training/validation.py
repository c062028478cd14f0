"""Measures on validation users' choices, by which the checkpoint is chosen: those that evaluation reports."""

from __future__ import annotations

import numpy as np

from newfound import measures
from newfound.transitions.choice_model import Choices
from newfound.types import Floats


def validation_measures(scores: Floats, choices: Choices) -> dict[str, float]:
    """NovelRecall@1 and @10, the mean reciprocal rank, and chance beside them.

    Args:
        scores: [T, N], higher is better; equal ones are ordered by index, see `measures.ranks_of`.
        choices: T of them; what the person knew cannot be answered.
    """
    clusters = scores.shape[1]
    ranks = measures.ranks_of(scores, choices.labels, choices.known)
    known = choices.known.sum(axis=1)
    return {
        "novel_recall@1": float(measures.hits(ranks, 1).mean()),
        # The rank of what was not answered is the number of clusters, which may be below 10.
        "novel_recall@10": float(measures.hits(ranks, min(10, clusters)).mean()),
        "mrr": measures.mean_reciprocal_rank(ranks, clusters),
        "chance@1": float(measures.chance(1, clusters, known).mean()),
        "chance@10": float(measures.chance(10, clusters, known).mean()),
    }


def sample(choices: Choices, at_most: int, seed: int) -> Choices:
    """A seeded sample, in order."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(choices))[:at_most])
    return Choices(choices.contexts[chosen], choices.labels[chosen], choices.known[chosen], choices.kinship)
