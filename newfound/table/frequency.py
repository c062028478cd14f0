"""Pair frequencies with back-off as rows of the table, where there is no language model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from newfound.table.answers import rows_of
from newfound.transitions.artifact import Transitions
from newfound.transitions.frequency_model import FrequencyModel
from newfound.types import Context

BLOCK = 2048  # contexts at a time


def frequency_rows(
    contexts: Sequence[Context], transitions: Transitions, top_k: int, recent: float | None = None
) -> tuple[pa.Table, float]:
    """The k most frequent successors of each context, and the seconds that they took.

    Args:
        contexts: to answer.
        transitions: whose balanced set is counted.
        top_k: answers a context, at most.
        recent: share of the transitions, the latest, that are balanced and counted instead.

    Raises:
        DataError: there is no transition to count.
    """
    clusters, counted = transitions.clusters, transitions.balanced(recent)
    model = FrequencyModel(counted.contexts, counted.labels, len(clusters.interface), counted.weights)
    started = time.monotonic()
    tables = []
    for start in range(0, len(contexts), BLOCK):
        block = contexts[start : start + BLOCK]
        found = model.distribution(np.array([[clusters.index[c] for c in context] for context in block]))
        best = np.argsort(-found, axis=1, kind="stable")[:, : min(top_k, found.shape[1])].astype(np.int32)
        values = np.take_along_axis(found, best, axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(values)
        tables.append(rows_of(block, np.where(values > 0, best, -1), logs, clusters.interface, "frequency"))
    return pa.concat_tables(tables), time.monotonic() - started
