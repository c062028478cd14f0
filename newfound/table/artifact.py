"""The table as it is served: a folder of `table.parquet` (schema.TABLE) and `table.json`, which is written last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.schema import CLUSTER, CONTEXT, RANK, SCORE, SOURCE, TABLE
from newfound.types import Context, Floats

FORMAT: Final = 1
FILE: Final = "table.parquet"
RECORD: Final = "table.json"
SOURCES: Final = ("planner", "frequency", "popularity")


class Successor(NamedTuple):
    """One answer: the cluster, the natural logarithm of its probability, and who gave it."""

    cluster: str
    score: float
    source: str


class TransitionTable:
    """Next clusters by context, best first.

    Args:
        rows: schema.TABLE, sorted by context and rank.
        info: the record.
        clusters: those in use.

    Raises:
        VocabularyError: the table names clusters that there are not, or was made for others.
        DataError: the rows are not sorted by context and rank.
    """

    def __init__(self, rows: pa.Table, info: dict[str, Any], clusters: Clusters) -> None:
        if info["clusters_digest"] != clusters.digest:
            raise VocabularyError(
                f"table was made for clusters {info['clusters_digest'][:12]}; "
                f"expected those in use, {clusters.digest[:12]}"
            )
        self.info = info
        self.interface = clusters.interface
        names = pa.array(self.interface)
        contexts = rows[CONTEXT].combine_chunks()
        flat = pc.index_in(contexts.flatten(), value_set=names)
        answers = pc.index_in(rows[CLUSTER], value_set=names)
        if flat.null_count or answers.null_count:
            raise VocabularyError("table names a cluster that is not at the interface; expected those in use")
        self._answers: npt.NDArray[np.int32] = answers.to_numpy()
        self._scores: Floats = rows[SCORE].to_numpy()
        self._sources: list[str] = rows[SOURCE].unique().to_pylist()
        self._source: npt.NDArray[np.int32] = pc.index_in(rows[SOURCE], value_set=pa.array(self._sources)).to_numpy()
        ranks = rows[RANK].to_numpy().astype(np.int64)
        counts_up = (ranks == 0) | (ranks == np.append(-1, ranks[:-1]) + 1)
        if not counts_up.all():
            row = int(np.argmin(counts_up)) + 1
            raise DataError(
                FILE, "ranks do not count up from 0", expected="rows by context and rank", column=RANK, row=row
            )
        starts = np.flatnonzero(ranks == 0)
        self._stops = np.append(starts, len(rows)).astype(np.int64)
        offsets, places = contexts.offsets.to_numpy(), flat.to_numpy()
        base = offsets[0] if len(offsets) else 0
        self._row: dict[tuple[int, ...], int] = {
            tuple(places[offsets[start] - base : offsets[start + 1] - base].tolist()): row
            for row, start in enumerate(starts.tolist())
        }
        if len(self._row) != len(starts):
            raise DataError(FILE, "a context has two runs of rows", expected="rows by context and rank", column=CONTEXT)
        self._index = clusters.index

    @classmethod
    def load(cls, path: str | Path, clusters: Clusters) -> TransitionTable:
        """Reads a table folder.

        Raises:
            DataError: a file is missing or broken.
            VocabularyError: the table was made for other clusters.
        """
        folder = Path(path)
        return cls(read_rows(folder), read_record(folder), clusters)

    def __len__(self) -> int:
        """Number of contexts."""
        return len(self._row)

    def __contains__(self, context: Context) -> bool:
        return self._find(context) is not None

    def _find(self, context: Sequence[str]) -> int | None:
        try:
            return self._row.get(tuple(self._index[c] for c in context))
        except KeyError:
            return None

    def successors(self, context: Sequence[str]) -> list[Successor] | None:
        """The context's next clusters, best first; None where the table does not hold the context."""
        row = self._find(context)
        if row is None:
            return None
        run = slice(self._stops[row], self._stops[row + 1])
        return [
            Successor(self.interface[answer], score, self._sources[source])
            for answer, score, source in zip(
                self._answers[run].tolist(), self._scores[run].tolist(), self._source[run].tolist(), strict=True
            )
        ]

    def log_probs(self, contexts: Sequence[Context]) -> Floats:
        """Log-probabilities of all clusters after each context, float32 [contexts, clusters].

        What a context's answers leave open is shared evenly by the clusters that they do not name. A context that the
        table does not hold has minus infinity throughout.
        """
        n = len(self.interface)
        found = np.full((len(contexts), n), -np.inf, dtype=np.float32)
        for at, context in enumerate(contexts):
            row = self._find(context)
            if row is None:
                continue
            run = slice(self._stops[row], self._stops[row + 1])
            left = max(1.0 - float(np.exp(self._scores[run].astype(np.float64)).sum()), 1e-6)
            found[at] = np.log(left / max(n - (run.stop - run.start), 1))
            found[at, self._answers[run]] = self._scores[run]
        return found

    def contexts(self) -> Iterable[Context]:
        """All contexts, in the file's order."""
        for places in self._row:
            yield tuple(self.interface[place] for place in places)


def read_rows(folder: Path) -> pa.Table:
    """`table.parquet`, checked against its schema.

    Raises:
        DataError: it is missing or broken, or holds an unknown source.
    """
    file = folder / FILE
    try:
        rows = pq.read_table(file).cast(TABLE)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(str(file), f"cannot be read ({' '.join(str(error).split())})", expected="a table") from error
    unknown = set(rows[SOURCE].unique().to_pylist()) - set(SOURCES)
    if unknown:
        raise DataError(str(file), f"source {min(unknown)!r}", expected=f"one of {', '.join(SOURCES)}", column=SOURCE)
    return rows


def read_record(folder: Path) -> dict[str, Any]:
    """`table.json`.

    Raises:
        DataError: it is missing, broken, or of another format.
    """
    file = folder / RECORD
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        if info["format"] != FORMAT or not isinstance(info["clusters_digest"], str):
            raise DataError(str(file), f"format {info['format']!r}", expected=f"format {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(file), f"cannot be read ({error!r})", expected="a table's record") from error
    return dict(info)
