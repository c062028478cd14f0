"""The table as it is served: a folder of two arrays, mapped into memory, and `table.json`, which is written last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.types import Array, Context, Floats, Ints

FORMAT: Final = 2
CONTEXTS_FILE: Final = "contexts.npy"  # int32 [P, K], in the clusters' order
FILE: Final = "log_probs.npy"  # float16 [P, N]
RECORD: Final = "table.json"
SOURCES: Final = ("planner", "frequency", "popularity")
CHECKED: Final = 4096  # rows looked at together
SHORTFALL: Final = 0.02  # of a row's probability, that float16 may lose


class Successor(NamedTuple):
    """One answer: the cluster, the natural logarithm of its probability, and who gave it."""

    cluster: str
    score: float
    source: str


class TransitionTable:
    """Log-probabilities of all clusters by context.

    Args:
        contexts: int32 [P, K], rows in the order of the clusters, no two alike.
        log_probs: float16 [P, N]; a row's own clusters have minus infinity.
        info: the record.
        clusters: those in use.

    Raises:
        VocabularyError: the table was made for other clusters.
        DataError: the arrays do not fit each other, a row is no distribution, or the contexts are not in order.
    """

    def __init__(self, contexts: Array, log_probs: Array, info: dict[str, Any], clusters: Clusters) -> None:
        if info["clusters_digest"] != clusters.digest:
            raise VocabularyError(
                f"table was made for clusters {info['clusters_digest'][:12]}; "
                f"expected those in use, {clusters.digest[:12]}"
            )
        self.info = info
        self.interface = clusters.interface
        self._index = clusters.index
        check_arrays(contexts, log_probs, len(self.interface))
        self._log_probs = log_probs
        self._contexts: Ints = contexts.astype(np.int64)
        self._codes = codes_of(self._contexts, len(self.interface))
        out_of_order = np.flatnonzero(np.diff(self._codes) <= 0)
        if len(out_of_order):
            row = int(out_of_order[0]) + 2
            raise DataError(CONTEXTS_FILE, "out of order, or there twice", expected="contexts in order", row=row)

    @classmethod
    def load(cls, path: str | Path, clusters: Clusters) -> TransitionTable:
        """Maps a table folder into memory.

        Raises:
            DataError: a file is missing or broken.
            VocabularyError: the table was made for other clusters.
        """
        folder = Path(path)
        info = read_record(folder)
        return cls(*read_arrays(folder), info, clusters)

    def __len__(self) -> int:
        """Number of contexts."""
        return len(self._codes)

    def __contains__(self, context: Context) -> bool:
        return bool(self._rows([context])[0] >= 0)

    @property
    def size(self) -> int:
        """K, the clusters in a context."""
        return int(self._contexts.shape[1])

    @property
    def source(self) -> str:
        """Source of the answers."""
        return str(self.info["source"])

    def log_probs(self, contexts: Sequence[Context]) -> Floats:
        """Natural-log probabilities of all clusters after some contexts.

        Args:
            contexts: B tuples of interface clusters, oldest first.

        Returns:
            float32 [B, N], each row's probabilities add up to 1; a context's own clusters have minus infinity. A
            context that the table does not hold has minus infinity throughout.
        """
        rows = self._rows(contexts)
        held = rows >= 0
        out = np.full((len(rows), len(self.interface)), -np.inf, dtype=np.float32)
        found = self._log_probs[rows[held]].astype(np.float32)
        # float16 carries three digits: what rounding adds or loses is shared out again.
        out[held] = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
        return out

    def successors(self, context: Sequence[str]) -> list[Successor] | None:
        """The context's next clusters, best first; None where the table does not hold the context.

        Equal ones are ordered as the clusters are.
        """
        if self._rows([tuple(context)])[0] < 0:
            return None
        values = self.log_probs([tuple(context)])[0]
        best = np.argsort(-values, kind="stable")
        return [Successor(self.interface[at], float(values[at]), self.source) for at in best if np.isfinite(values[at])]

    def contexts(self) -> Iterable[Context]:
        """All contexts, in order."""
        for places in self._contexts.tolist():
            yield tuple(self.interface[place] for place in places)

    def heads(self) -> Ints:
        """[P] the best answer to each context, as a cluster index."""
        return heads_of(self._log_probs)

    def _rows(self, contexts: Sequence[Context]) -> Ints:
        """[B] the rows of some contexts, -1 for those that are not held."""
        size, index = self.size, self._index
        known = [len(c) == size and all(cluster in index for cluster in c) for c in contexts]
        rows = np.full(len(contexts), -1, dtype=np.int64)
        held = np.flatnonzero(known)
        if not len(held) or not len(self):
            return rows
        places = np.array([[index[cluster] for cluster in contexts[at]] for at in held.tolist()], dtype=np.int64)
        codes = codes_of(places, len(self.interface))
        found = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        rows[held] = np.where(self._codes[found] == codes, found, -1)
        return rows


def codes_of(contexts: Ints, n: int) -> Ints:
    """[P] one number a context, which orders contexts as their clusters are ordered."""
    found: Ints = contexts @ (n ** np.arange(contexts.shape[1] - 1, -1, -1, dtype=np.int64))
    return found


def heads_of(log_probs: Array) -> Ints:
    """[P] the best answer of each row; of equal ones the first."""
    parts = [
        log_probs[start : start + CHECKED].astype(np.float32).argmax(axis=1)
        for start in range(0, len(log_probs), CHECKED)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def check_arrays(contexts: Array, log_probs: Array, n: int) -> None:
    """Refuses arrays that are no table of n clusters.

    Raises:
        DataError: names what is wrong, and the first row that is.
    """
    if contexts.ndim != 2 or not contexts.shape[1] or contexts.dtype != np.int32:
        problem = f"{contexts.dtype} of shape {contexts.shape}"
        raise DataError(CONTEXTS_FILE, problem, expected="int32 [contexts, clusters of a context]")
    if log_probs.shape != (len(contexts), n) or log_probs.dtype != np.float16:
        problem = f"{log_probs.dtype} of shape {log_probs.shape}"
        raise DataError(FILE, problem, expected=f"float16 {(len(contexts), n)}")
    if len(contexts) and (contexts.min() < 0 or contexts.max() >= n):
        row = int(np.flatnonzero(((contexts < 0) | (contexts >= n)).any(axis=1))[0]) + 1
        raise DataError(CONTEXTS_FILE, "a cluster that there is not", expected=f"0 to {n - 1}", row=row)
    for start in range(0, len(log_probs), CHECKED):
        with np.errstate(over="ignore"):
            mass = np.exp(log_probs[start : start + CHECKED].astype(np.float32)).sum(axis=1)
        wrong = np.flatnonzero(~(np.abs(mass - 1) <= SHORTFALL))
        if len(wrong):
            row = start + int(wrong[0])
            problem = f"probabilities add up to {mass[wrong[0]]:.3g}"
            raise DataError(FILE, problem, expected="a distribution in each row", row=row + 1)


def read_arrays(folder: Path) -> tuple[Array, Array]:
    """Contexts, and log-probabilities as a map of the file.

    Raises:
        DataError: a file is missing or broken.
    """
    try:
        contexts = np.load(folder / CONTEXTS_FILE, allow_pickle=False)
        return contexts, np.load(folder / FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(str(folder), f"cannot be read ({' '.join(str(error).split())})", expected="a table") from error


def read_record(folder: Path) -> dict[str, Any]:
    """`table.json`.

    Raises:
        DataError: it is missing, broken, of another format, or names an unknown source.
    """
    file = folder / RECORD
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        if info["format"] != FORMAT or not isinstance(info["clusters_digest"], str):
            raise DataError(str(file), f"format {info['format']!r}", expected=f"format {FORMAT}")
        if info["source"] not in SOURCES:
            raise DataError(str(file), f"source {info['source']!r}", expected=f"one of {', '.join(SOURCES)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(file), f"cannot be read ({error!r})", expected="a table's record") from error
    return dict(info)
