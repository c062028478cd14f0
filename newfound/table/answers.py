"""The planner's answers to contexts, as rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from newfound.config import TableConfig
from newfound.types import Array, Bools, Context, Floats, Ints

if TYPE_CHECKING:
    from newfound.planner.planner import Planner
    from newfound.planner.remote.planner import RemotePlanner

    Engine = Planner | RemotePlanner


class MainEffects:
    """Contribution of each place of a context to the log-probabilities, averaged over contexts that were asked.

    A context that nobody was asked about is answered by it: the mean log-probabilities of the contexts that have the
    same interest at the same place, added up over the places beyond the overall mean. The planner is taught additive
    utilities, so little is lost.

    Args:
        contexts: [P, K] cluster indices that were asked.
        log_probs: [P, N] the answers.
    """

    def __init__(self, contexts: Ints, log_probs: Array) -> None:
        n, width = log_probs.shape[1], contexts.shape[1]
        sums, counts = np.zeros((width, n, n)), np.zeros((width, n, n))
        for start in range(0, len(contexts), 4096):
            part = log_probs[start : start + 4096].astype(np.float64)
            there = np.isfinite(part)
            part[~there] = 0
            for place in range(width):
                np.add.at(sums[place], contexts[start : start + 4096, place], part)
                np.add.at(counts[place], contexts[start : start + 4096, place], there)
        total = counts.sum(axis=1, keepdims=True)
        self.mean = (sums.sum(axis=1, keepdims=True) / np.maximum(total, 1))[0, 0]  # [N]
        # An imagined answer at the mean holds an interest that was hardly asked about to it.
        self.effect = (sums + self.mean) / (counts + 1) - self.mean  # [K, N, N]

    def log_probs(self, contexts: Ints) -> Floats:
        """[B, N]; a context's own clusters have minus infinity."""
        from newfound.planner.planner import closed_log_probs

        found = self.mean + sum(self.effect[place][contexts[:, place]] for place in range(contexts.shape[1]))
        return closed_log_probs(found, [tuple(context) for context in contexts.tolist()])


def second_build(
    model: Engine, contexts: Sequence[Context], asked: Bools, first: Array, config: TableConfig
) -> dict[str, Any]:
    """Agreement of a sample's rows when worked out again, every prompt read anew in other company.

    bfloat16 products depend a little on what is computed beside them, and an engine's batches on its load.

    Args:
        contexts: P of them.
        asked: [P], which of them the model answered.
        first: [P, N] their rows.
    """
    chosen = np.flatnonzero(asked)
    chosen = np.sort(np.random.default_rng(0).permutation(chosen)[: config.second_build])
    if not len(chosen):
        return {"contexts": 0, "top1_agreement": 1.0, "largest_difference": 0.0}
    again = model.log_probs([contexts[at] for at in chosen.tolist()], anew=True)
    before = first[chosen].astype(np.float32)
    best = again.argmax(axis=1)
    same = before.argmax(axis=1) == best
    rows = np.flatnonzero(same)
    differences = np.abs(before[rows, best[rows]] - again[rows, best[rows]])
    return {
        "contexts": len(chosen),
        "top1_agreement": float(same.mean()),
        "largest_difference": round(float(differences.max(initial=0.0)), 5),
    }
