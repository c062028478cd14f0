"""Differences between two tables, and the concentration of one's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from newfound.errors import DataError
from newfound.measures import gini
from newfound.table.artifact import codes_of, heads_of, read_arrays, read_record
from newfound.types import Array, Floats, Ints

JACCARD_AT = 5
HEAD = 0.1
BLOCK = 4096  # contexts compared at a time


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
    first, second = _Answers.read(Path(before)), _Answers.read(Path(after))
    names = sorted({*first.names, *second.names})
    codes = [answers.codes(names) for answers in (first, second)]
    shared, *rows = np.intersect1d(codes[0], codes[1], assume_unique=True, return_indices=True)
    if not len(shared):
        raise DataError(str(after), "shares no context with the other table", expected="tables of the same clusters")
    overlap = float(np.mean(_jaccards(first, second, rows, names)))
    heads = [
        [answers.names[at] for at in answers.heads[row]] for answers, row in zip((first, second), rows, strict=True)
    ]
    contexts = [tuple(first.names[at] for at in first.contexts[row]) for row in rows[0]]
    changed = [(context, old, new) for context, old, new in zip(contexts, *heads, strict=True) if old != new]
    spread = [spread_of(list(_counts(head, len(names)))) for head in heads]
    return TableDiff(
        contexts=len(shared),
        contexts_gained=len(codes[1]) - len(shared),
        contexts_lost=len(codes[0]) - len(shared),
        pairs_changed=len(changed) / len(shared),
        successor_jaccard=overlap,
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


def concentration(log_probs: Array) -> dict[str, float]:
    """Spread of the best answers over the clusters: Gini, the head's share, and the share that is answered at all."""
    return spread_of(np.bincount(heads_of(log_probs), minlength=log_probs.shape[1]).tolist())


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


@dataclass(frozen=True)
class _Answers:
    """A table with the names of its clusters."""

    names: list[str]
    contexts: Ints
    log_probs: Array

    @classmethod
    def read(cls, folder: Path) -> _Answers:
        names = list(read_record(folder)["interface"])
        contexts, log_probs = read_arrays(folder)
        if log_probs.shape != (len(contexts), len(names)):
            problem = f"{log_probs.shape} log-probabilities"
            raise DataError(str(folder), problem, expected=f"{(len(contexts), len(names))}")
        return cls(names, contexts.astype(np.int64), log_probs)

    @property
    def heads(self) -> Ints:
        return heads_of(self.log_probs)

    def codes(self, names: Sequence[str]) -> Ints:
        """[P] a number a context that both tables agree on."""
        places = {name: at for at, name in enumerate(names)}
        return codes_of(np.array([places[name] for name in self.names])[self.contexts], len(names))

    def best(self, rows: Ints, names: Sequence[str], k: int) -> Ints:
        """[B, k] the best answers to some contexts, as places in `names`."""
        places = np.array([list(names).index(name) for name in self.names])
        found: Ints = places[np.argsort(-self.log_probs[rows].astype(np.float32), axis=1, kind="stable")[:, :k]]
        return found


def _jaccards(first: _Answers, second: _Answers, rows: Sequence[Ints], names: Sequence[str]) -> Floats:
    """[S] the Jaccard of the best answers to each shared context."""
    found = []
    k = min(JACCARD_AT, first.log_probs.shape[1], second.log_probs.shape[1])
    for start in range(0, len(rows[0]), BLOCK):
        one = first.best(rows[0][start : start + BLOCK], names, k)
        other = second.best(rows[1][start : start + BLOCK], names, k)
        common = (one[:, :, None] == other[:, None, :]).sum(axis=(1, 2))
        found.append(common / (2 * k - common))
    return np.concatenate(found).astype(np.float32)


def _counts(heads: Sequence[str], clusters: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    _, counts = np.unique(np.array(heads, dtype=str), return_counts=True)
    return np.concatenate([counts, np.zeros(max(clusters - len(counts), 0), dtype=np.int64)])
