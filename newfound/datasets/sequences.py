"""Text files of whole histories, one user a line: the user's id and their items' ids in order, parted by blanks.

The field's sequential benchmarks are published like this. A line's order is all that is known of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from newfound.datasets.bounds import MOST_BATCH_ROWS
from newfound.errors import DataError
from newfound.schema import ITEM, TIME, USER

LONGEST_LINE: Final = 8 << 20  # bytes: more is no history
COLUMNS: Final[Mapping[str, str]] = {USER: "user", ITEM: "item", TIME: "position"}


def open_sequences(path: Path) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    """Opens a file for one pass.

    Returns:
        newfound's names -> those of the batches, and the batches: an event a row, its position as its time.

    Raises:
        DataError: on reading, a line holds a user without items, or is longer than any history.
    """
    return dict(COLUMNS), _batches(path)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    users: list[str] = []
    items: list[str] = []
    positions: list[int] = []
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                expected = f"a user and their items in at most {LONGEST_LINE:,} bytes"
                raise DataError(str(path), "the line is too long", row=number, expected=expected)
            try:
                user, *own = line.decode("utf-8").split() or [""]
            except UnicodeDecodeError as error:
                raise DataError(str(path), "is not UTF-8 here", row=number, expected="UTF-8 text") from error
            if not user:
                continue
            if not own:
                raise DataError(str(path), "a user without items", row=number, expected="a user and their items")
            users += [user] * len(own)
            items += own
            positions += range(len(own))
            if len(users) >= MOST_BATCH_ROWS:
                yield _batch(users, items, positions)
                users, items, positions = [], [], []
    if users:
        yield _batch(users, items, positions)


def _batch(users: list[str], items: list[str], positions: list[int]) -> pa.RecordBatch:
    columns = [pa.array(users, pa.string()), pa.array(items, pa.string()), pa.array(positions, pa.int64())]
    return pa.record_batch(columns, names=list(COLUMNS.values()))
