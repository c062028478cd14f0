"""Differences between two tables, and the concentration of one's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from newfound.errors import DataError
from newfound.measures import gini
from newfound.schema import CLUSTER, CONTEXT, RANK
from newfound.table.artifact import read_record, read_rows

JACCARD_AT = 5
HEAD = 0.1

Answers = dict[tuple[str, ...], list[str]]


@dataclass(frozen=True)
class TableDiff:
    """A second table against a first, over the contexts that both hold."""

    contexts: int
    contexts_gained: int
    contexts_lost: int
    pairs_changed: float
    """share of contexts whose best answer differs"""
    successor_jaccard: float
    """mean Jaccard of the five best answers"""
    labels_gained: list[str]
    """clusters that are a best answer now and were none before"""
    labels_lost: list[str]
    gini_before: float
    gini_after: float
    head_share_before: float
    """share of best answers that the most answered tenth of the clusters take"""
    head_share_after: float
    coverage_before: float
    """share of clusters that are some context's best answer"""
    coverage_after: float
    changed: list[tuple[tuple[str, ...], str, str]]
    """context, best answer before, best answer after"""

    def measures(self) -> dict[str, float | int]:
        """The numbers alone, flat."""
        flat = {name: value for name, value in asdict(self).items() if isinstance(value, int | float)}
        return {**flat, "labels_gained": len(self.labels_gained), "labels_lost": len(self.labels_lost)}


def compare_tables(before: str | Path, after: str | Path) -> TableDiff:
    """Compares two table folders.

    Raises:
        DataError: a file is missing or broken, or the tables share no context.
    """
    first, second = _answers(Path(before)), _answers(Path(after))
    shared = [context for context in first if context in second]
    if not shared:
        raise DataError(str(after), "shares no context with the other table", expected="tables of the same clusters")
    clusters = len(set().union(*first.values(), *second.values(), *first, *second))
    heads = [[answers[context][0] for context in shared] for answers in (first, second)]
    changed = [(context, old, new) for context, old, new in zip(shared, heads[0], heads[1], strict=True) if old != new]
    overlap = [_jaccard(first[context][:JACCARD_AT], second[context][:JACCARD_AT]) for context in shared]
    spread = [spread_of(list(_counts(head, clusters))) for head in heads]
    return TableDiff(
        contexts=len(shared),
        contexts_gained=len(second) - len(shared),
        contexts_lost=len(first) - len(shared),
        pairs_changed=len(changed) / len(shared),
        successor_jaccard=float(np.mean(overlap)),
        labels_gained=sorted(set(heads[1]) - set(heads[0])),
        labels_lost=sorted(set(heads[0]) - set(heads[1])),
        gini_before=spread[0]["gini"],
        gini_after=spread[1]["gini"],
        head_share_before=spread[0]["head_share"],
        head_share_after=spread[1]["head_share"],
        coverage_before=spread[0]["label_coverage"],
        coverage_after=spread[1]["label_coverage"],
        changed=changed,
    )


def drift(tables: Sequence[str | Path]) -> list[TableDiff]:
    """Each table against the one before it, oldest first."""
    return [compare_tables(old, new) for old, new in zip(tables, tables[1:], strict=False)]


def concentration(rows: pa.Table, clusters: Sequence[str]) -> dict[str, float]:
    """Spread of the best answers over the clusters: Gini, the head's share, and the share that is answered at all."""
    heads = rows.filter(pc.equal(rows[RANK], 0))[CLUSTER].to_pylist()
    return spread_of(list(_counts(heads, len(clusters))))


def spread_of(counts: Sequence[int]) -> dict[str, float]:
    """Of answer counts, one a cluster.

    >>> spread_of([4, 0, 0, 0])
    {'gini': 0.75, 'head_share': 1.0, 'label_coverage': 0.25}
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    total, n = ordered.sum(), len(ordered)
    if not total:
        return {"gini": 0.0, "head_share": 0.0, "label_coverage": 0.0}
    head = ordered[::-1][: max(1, round(HEAD * n))].sum()
    return {"gini": gini(ordered), "head_share": float(head / total), "label_coverage": float((ordered > 0).mean())}


def _answers(folder: Path) -> Answers:
    read_record(folder)
    rows = read_rows(folder)
    out: Answers = {}
    for context, cluster in zip(rows[CONTEXT].to_pylist(), rows[CLUSTER].to_pylist(), strict=True):
        out.setdefault(tuple(context), []).append(cluster)
    return out


def _counts(heads: Sequence[str], clusters: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    _, counts = np.unique(np.array(heads, dtype=str), return_counts=True)
    return np.concatenate([counts, np.zeros(max(clusters - len(counts), 0), dtype=np.int64)])


def _jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    return len(set(a) & set(b)) / len(set(a) | set(b))
