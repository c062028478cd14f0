"""Pair frequencies with back-off as rows of the table, where there is no language model."""

from __future__ import annotations

import numpy as np

from newfound.transitions.artifact import Transitions
from newfound.transitions.frequency_model import FrequencyModel
from newfound.types import Array, Ints

BLOCK = 2048  # contexts at a time


def frequency_rows(contexts: Ints, transitions: Transitions, recent: float | None = None) -> Array:
    """float16 [P, N] log-probabilities of all clusters after some contexts.

    Args:
        contexts: [P, K] cluster indices.
        transitions: whose balanced set is counted.
        recent: share of the transitions, the latest, that are balanced and counted instead.

    Raises:
        DataError: there is no transition to count.
    """
    counted, n = transitions.balanced(recent), len(transitions.clusters.interface)
    model = FrequencyModel(counted.contexts, counted.labels, n, counted.weights)
    out = np.zeros((len(contexts), n), dtype=np.float16)
    for start in range(0, len(contexts), BLOCK):
        with np.errstate(divide="ignore"):
            out[start : start + BLOCK] = np.log(model.distribution(contexts[start : start + BLOCK]))
    return out
