"""Training set of the planner: contexts, how often each is drawn, and the distribution over what comes next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from newfound.config import FinetuneConfig
from newfound.planner.training.hints import fit_hint_boost
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import fit_choices
from newfound.types import Floats, Ints

NO_HINT = -1


@dataclass(frozen=True)
class TrainingSet:
    """U contexts, each with a distribution over the N clusters.

    Args:
        contexts: [U, K] cluster indices.
        weights: [U], how often each is drawn.
        targets: [U, N] probabilities of the next cluster; 0 for those of the context itself.
        hint_boost: log-odds boost of a hinted cluster, in nats; None where no prompt has a hint.
    """

    contexts: Ints
    weights: Floats
    targets: Floats
    hint_boost: float | None = None

    def __len__(self) -> int:
        return len(self.contexts)

    def draw_successor(self, row: int, rng: np.random.Generator) -> int:
        """A cluster that may follow: half by the context's distribution, half any, so that none stays unknown."""
        target = self.targets[row].astype(np.float64)
        possible = target > 0
        share = 0.5 * target / target.sum() + 0.5 * possible / possible.sum()
        return int(rng.choice(len(share), p=share / share.sum()))

    def hinted_targets(self, rows: Ints, hints: Ints) -> Floats:
        """[B, N] targets of some contexts after prompts with hints, or `NO_HINT`, which get their boost."""
        targets = self.targets[rows]
        hinted = np.flatnonzero(hints != NO_HINT)
        targets[hinted, hints[hinted]] *= math.exp(self.hint_boost or 0.0)
        targets[hinted] /= targets[hinted].sum(axis=1, keepdims=True)
        return targets


def read_training_set(transitions: Transitions, config: FinetuneConfig, seed: int) -> TrainingSet:
    """The balanced contexts, each with the distribution of a choice model fitted to training users.

    Raises:
        DataError: the training set is empty.
    """
    balanced, choices = transitions.balanced(), transitions.choices()
    model = fit_choices(choices, config.teacher_penalty, config.teacher_epochs, seed)
    unique, context = np.unique(balanced.contexts, axis=0, return_inverse=True)
    drawn = np.bincount(context.reshape(-1), weights=balanced.weights, minlength=len(unique))
    return TrainingSet(
        contexts=unique,
        weights=np.sqrt(drawn).astype(np.float32),
        targets=model.distribution(unique),
        hint_boost=fit_hint_boost(choices, config, seed) if config.hint_share else None,
    )


def draw_batches(data: TrainingSet, size: int, block: int, seed: int) -> Iterator[Ints]:
    """Endless batches of rows of the training set, [size] each.

    Each pass draws as many contexts as there are, by weight with replacement, and hands them out in blocks that share
    their first interest, so that the model reads it once for a block.
    """
    rng = np.random.default_rng(seed)
    share = data.weights / data.weights.sum()
    share = share.astype(np.float64) / share.sum(dtype=np.float64)
    pending: list[Ints] = []
    while True:
        drawn = np.unique(rng.choice(len(data), size=max(len(data), size), p=share))
        drawn = drawn[rng.permutation(len(drawn))]
        drawn = drawn[np.argsort(data.contexts[drawn, 0], kind="stable")]
        edges = np.flatnonzero(np.diff(data.contexts[drawn, 0])) + 1
        blocks = [b for run in np.split(drawn, edges) for b in np.split(run, range(block, len(run), block))]
        pending.extend(blocks[i] for i in rng.permutation(len(blocks)))
        batch: list[int] = []
        while pending:
            batch.extend(pending.pop().tolist())
            if len(batch) >= size:
                yield np.array(batch[:size])
                batch = batch[size:]
