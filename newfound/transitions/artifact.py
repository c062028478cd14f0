"""The mined transitions of one folder, as indices of the interface clusters.

Whatever learns from transitions reads them here, so that all of it keeps to the same rules: what may be learned from is
positive, of the groups of users that the mining learned from, and of no context that was withheld by design.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound import schema
from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.transitions.choice_model import Choices, kinship_of
from newfound.types import Array, Bools, Context, Floats, Ints

ALL_FILE: Final = "transitions.parquet"
BALANCED_FILE: Final = "balanced.parquet"
WITHHELD_FILE: Final = "held_out.parquet"
RECORD: Final = "transitions.json"


@dataclass(frozen=True)
class Counts:
    """The transitions that may be learned from: contexts [T, K] and labels [T], of n clusters."""

    contexts: Ints
    labels: Ints
    n: int

    @property
    def frequency(self) -> Ints:
        """[N], how often each cluster is a label."""
        return np.bincount(self.labels, minlength=self.n)


@dataclass(frozen=True)
class Balanced:
    """The balanced training set: contexts [T, K], labels [T], and the transitions behind each sample [T]."""

    contexts: Ints
    labels: Ints
    weights: Floats


class Transitions:
    """The mined transitions of one folder; files are read when first asked for.

    Args:
        folder: of `mine_transitions`.
        clusters: those that the transitions were mined with.
        record: the folder's `transitions.json`.
    """

    def __init__(self, folder: Path, clusters: Clusters, record: dict[str, Any]) -> None:
        self.folder, self.clusters, self.record = folder, clusters, record
        self.size = int(record["config"]["context"])
        """K, the clusters in a context"""

    @classmethod
    def load(cls, folder: str | Path, clusters: Clusters) -> Transitions:
        """Opens a folder of `mine_transitions`.

        Raises:
            DataError: the record is missing or broken.
            VocabularyError: the transitions were mined with other clusters.
        """
        file = Path(folder) / RECORD
        try:
            record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            found = cls(Path(folder), clusters, record)
            mined_with = record["clusters_digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                str(file), f"cannot be read ({error!r})", expected="the record of mined transitions"
            ) from None
        if mined_with != clusters.digest:
            raise VocabularyError(f"{file}: mined with other clusters; expected those in use")
        return found

    def balanced(self, recent: float | None = None) -> Balanced:
        """The balanced training set.

        Args:
            recent: share of the positive transitions, by time, that make the set instead, balanced as the mined one.

        Raises:
            DataError: it holds nothing.
        """
        file = self.folder / BALANCED_FILE
        table = self._read(BALANCED_FILE, schema.BALANCED) if recent is None else self._balanced_anew(recent)
        if not len(table):
            raise DataError(str(file), "no transition", expected="at least one positive transition of a training user")
        weights = table[schema.WEIGHT].to_numpy().astype(np.float32)
        return Balanced(self._contexts(table, file), self._indices(table[schema.NEXT], file), weights)

    def choices(self, split: str | None = None) -> Choices:
        """Positive transitions as choices among what was new to the person at that moment, by user and time.

        What a person knew is what their transitions name up to then: the contexts and the clusters that came.

        Args:
            split: a group of users, in whatever context; None: the choices that may be learned from.
        """
        order, user = self._by_user(self._of(split))
        contexts, labels = self._all_contexts[order], self._labels[order]
        positive, held_out = self._positive[order], self._held_out[order]
        n, people, step = len(self.clusters.interface), int(user.max(initial=-1)) + 1, np.arange(len(order))
        # When each person's transitions first name a cluster: a context comes just before the cluster that it led to.
        named = np.full((people, n), 2 * len(order), dtype=np.int64)
        np.minimum.at(named, (user[:, None], contexts), 2 * step[:, None])
        np.minimum.at(named, (user, labels), 2 * step + 1)
        chosen = positive & (named[user, labels] > 2 * step)
        if split is None:
            chosen &= ~held_out
        # A context that is withheld tells nothing, not even that both are liked.
        liked = np.zeros((people, n), dtype=bool)
        liked[user[~held_out, None], contexts[~held_out]] = True
        liked[user[~held_out & positive], labels[~held_out & positive]] = True
        return Choices(
            contexts=contexts[chosen],
            labels=labels[chosen],
            known=named[user[chosen]] <= 2 * step[chosen, None],
            kinship=kinship_of(self.clusters.interface_vectors, liked),
            users=user[chosen],
        )

    def counts(self) -> Counts:
        """The transitions that may be learned from."""
        rows = self._of(None) & self._positive & ~self._held_out
        return Counts(self._all_contexts[rows], self._labels[rows], len(self.clusters.interface))

    def context_counts(self) -> dict[Context, int]:
        """Number of anybody's transitions after each context."""
        contexts, counts = np.unique(self._all_contexts, axis=0, return_counts=True)
        return dict(zip(self._named(contexts), counts.tolist(), strict=True))

    def withheld(self) -> set[Context]:
        """The contexts that mining withheld from training by design."""
        table = self._read(WITHHELD_FILE, schema.WITHHELD)
        return {tuple(context) for context in table[schema.CONTEXT].to_pylist()}

    def withheld_steps(self) -> set[tuple[str, str]]:
        """User and next cluster of the transitions whose context is withheld."""
        rows = self._table.filter(pa.array(self._held_out))
        return set(zip(rows[schema.USER].to_pylist(), rows[schema.NEXT].to_pylist(), strict=True))

    def learners(self) -> set[str]:
        """Users whose transitions may be learned from."""
        return set(self._table.filter(pa.array(self._of(None)))[schema.USER].to_pylist())

    def recent_pairs(self, recent: float) -> tuple[Ints, Ints, Ints]:
        """The latest positive transitions of everybody.

        Args:
            recent: share of the positive transitions, by time, that count.

        Returns:
            Contexts [P, K] and labels [P], each pair of them once, and how often it came [P].
        """
        positive = np.flatnonzero(self._positive)
        rows = self._table.select([schema.AT, schema.USER, schema.NEXT]).take(pa.array(positive))
        order = positive[pc.sort_indices(rows, [(name, "ascending") for name in rows.column_names]).to_numpy()]
        lately = order[np.arange(len(order)) >= len(order) * (1 - recent)]
        steps = np.column_stack([self._all_contexts[lately], self._labels[lately]])
        pairs, times = np.unique(steps, axis=0, return_counts=True)
        return pairs[:, :-1], pairs[:, -1], times

    def digest(self) -> str:
        """SHA-256 of all that the planner learns from."""
        found = hashlib.sha256((self.folder / BALANCED_FILE).read_bytes())
        found.update((self.folder / ALL_FILE).read_bytes())
        return found.hexdigest()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _read(self, name: str, contract: pa.Schema) -> pa.Table:
        file = self.folder / name
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise DataError(str(file), f"cannot be read ({error!r})", expected="a file of mined transitions") from None
        if not table.schema.equals(contract):
            raise DataError(str(file), f"columns {table.schema.names}", expected=f"{contract.names} of their types")
        return table

    @cached_property
    def _table(self) -> pa.Table:
        return self._read(ALL_FILE, schema.TRANSITIONS)

    @cached_property
    def _all_contexts(self) -> Ints:
        return self._contexts(self._table, self.folder / ALL_FILE)

    @cached_property
    def _labels(self) -> Ints:
        return self._indices(self._table[schema.NEXT], self.folder / ALL_FILE)

    @cached_property
    def _positive(self) -> Bools:
        return np.asarray(self._table[schema.POSITIVE])

    @cached_property
    def _held_out(self) -> Bools:
        return np.asarray(self._table[schema.HELD_OUT])

    def _of(self, split: str | None) -> Bools:
        """Rows of a group of users; None: of the groups that the mining learned from."""
        if split is None and self.record["config"]["learn_from"] == "all":
            return np.ones(len(self._table), dtype=bool)
        return np.asarray(pc.equal(self._table[schema.SPLIT], split or "train"))

    def _by_user(self, rows: Bools) -> tuple[Ints, Ints]:
        """Some rows by user, within a user in the file's order, which is that of the events; and each one's user."""
        picked = np.flatnonzero(rows)
        names = self._table[schema.USER].take(pa.array(picked)).to_numpy()
        user = np.unique(names, return_inverse=True)[1] if len(names) else np.zeros(0, dtype=np.int64)
        order = np.argsort(user, kind="stable")
        return picked[order], user[order]

    def _indices(self, column: pa.ChunkedArray | pa.Array, file: Path) -> Ints:
        found = pc.index_in(column, value_set=pa.array(self.clusters.interface, pa.string()))
        if found.null_count:
            unknown = column.filter(found.is_null())[0].as_py()
            raise VocabularyError(f"{file}: cluster {unknown!r}; expected an interface cluster")
        indices: Ints = found.to_numpy().astype(np.int64)
        return indices

    def _contexts(self, table: pa.Table, file: Path) -> Ints:
        column = table[schema.CONTEXT].combine_chunks()
        if not pc.all(pc.equal(pc.list_value_length(column), self.size), min_count=0).as_py():
            raise DataError(str(file), "a context of another size", expected=f"{self.size} clusters in each")
        return self._indices(column.flatten(), file).reshape(-1, self.size)

    def _named(self, contexts: Ints) -> list[Context]:
        names: Array = np.array(self.clusters.interface, dtype=object)
        return [tuple(row) for row in names[contexts].tolist()]

    def _balanced_anew(self, recent: float) -> pa.Table:
        import ibis

        from newfound.transitions.balance import balance

        contexts, labels, counts = self.recent_pairs(recent)
        names: Array = np.array(self.clusters.interface, dtype=object)
        columns = [self._named(contexts), names[labels].tolist(), counts.astype(np.float32)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema.BALANCED, strict=True)]
        pairs = ibis.memtable(pa.table(arrays, schema=schema.BALANCED))
        kept = balance(pairs, self.record["config"]["per_label"], self.record["seed"])
        kept = kept.select(schema.BALANCED.names).order_by(schema.NEXT, ibis.desc(schema.WEIGHT), schema.CONTEXT)
        return kept.to_pyarrow().cast(schema.BALANCED)
