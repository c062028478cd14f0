"""Pair frequencies with back-off as rows of the table, where there is no language model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from newfound.clusters import Clusters
from newfound.table.answers import rows_of
from newfound.transitions.frequency_model import FrequencyModel
from newfound.types import Context

BLOCK = 2048  # contexts at a time


def frequency_rows(
    contexts: Sequence[Context], transitions: Path, clusters: Clusters, top_k: int
) -> tuple[pa.Table, float]:
    """The k most frequent successors of each context, and the seconds that they took.

    Raises:
        DataError: there is no transition to count.
    """
    from newfound.planner.training.training_set import training_set

    seen, labels, weights = training_set(transitions / "balanced.parquet", clusters)
    model = FrequencyModel(seen, labels, len(clusters.interface), weights)
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
