"""Everybody's past events in columns, as of the cut: the only past that learning steps read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.errors import DataError
from newfound.schema import ENGAGEMENTS, HISTORIES, ITEM_IDS, POSITIVES, TIMES, USER
from newfound.types import Bools, Floats, Ints

ARRAYS = (ITEM_IDS, TIMES, ENGAGEMENTS, POSITIVES)


class History(NamedTuple):
    """One user's events, oldest first."""

    item_ids: list[str]
    times: Ints  # UTC milliseconds
    engagements: Floats
    positives: Bools


@dataclass(frozen=True)
class Histories:
    """Everybody's events in columns: user `i` owns the events from `offsets[i]` to `offsets[i + 1]`, oldest first."""

    users: list[str]  # sorted
    offsets: Ints  # [users + 1]
    item_ids: npt.NDArray[np.object_]  # [events] of str
    times: Ints  # [events], UTC milliseconds
    engagements: Floats  # [events]
    positives: Bools  # [events]
    row_of: dict[str, int] = field(init=False, repr=False)  # user -> i

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_of", {user: row for row, user in enumerate(self.users)})

    @classmethod
    def load(cls, path: Path) -> Histories:
        """Reads `histories.parquet`.

        Raises:
            DataError: the file is missing or broken, or does not hold the columns of `schema.HISTORIES`.
        """
        try:
            table = pq.read_table(path, columns=[USER, *ARRAYS]).combine_chunks()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(str(path), f"cannot be read ({error})", expected="a Parquet file of histories") from error
        columns = {
            name: table.column(name).chunk(0) if len(table) else pa.array([], HISTORIES.field(name).type)
            for name in (USER, *ARRAYS)
        }
        lengths = columns[ITEM_IDS].value_lengths().to_numpy(zero_copy_only=False)
        return cls(
            users=columns[USER].to_pylist(),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            item_ids=columns[ITEM_IDS].flatten().to_numpy(zero_copy_only=False),
            times=columns[TIMES].flatten().to_numpy(),
            engagements=columns[ENGAGEMENTS].flatten().to_numpy(),
            positives=columns[POSITIVES].flatten().to_numpy(zero_copy_only=False),
        )

    def __len__(self) -> int:
        return len(self.users)

    def __contains__(self, user: object) -> bool:
        return user in self.row_of

    def __iter__(self) -> Iterator[tuple[str, History]]:
        for user in self.users:
            yield user, self.of(user)

    def of(self, user: str) -> History:
        """The user's events; empty for a user without a past."""
        row = self.row_of.get(user)
        events = slice(0, 0) if row is None else slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return History(
            self.item_ids[events].tolist(), self.times[events], self.engagements[events], self.positives[events]
        )
