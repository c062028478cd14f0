"""Bounds on what a source file may unpack to, so that a small file cannot fill the memory.

A Parquet file of a few kilobytes can stand for gigabytes: a long value that is repeated, a page that unpacks to much
more. So rows are read in batches by what the file says of their size, text stays coded until a batch is cut into slices
of bounded size, and values longer than any that is of use are cut short, for the checks to refuse their row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from newfound.errors import DataError
from newfound.types import Ints

BLOCK_BYTES = 8 << 20  # about what is unpacked at a time
LONGEST_TEXT = 1 << 17  # characters of a value
LONGEST_LIST = 1024  # values of a list
MOST_BATCH_ROWS = 1 << 16
LARGEST_ROW = 64 << 20  # bytes of a row, on the average of a row group: more is no row of a data set
LARGE, STEEPEST = 64 << 20, 200  # a column that unpacks to so many bytes, and to so many times its size, is a bomb


@dataclass(frozen=True)
class Chunk:
    """A column of a row group, as the footer has it.

    Attributes:
        path: in the schema, the column first.
        packed, unpacked: bytes.
        values: how many.
    """

    path: tuple[str, ...]
    packed: int
    unpacked: int
    values: int


def row_groups(file: Path) -> list[tuple[int, list[Chunk]]]:
    """Rows and columns of every row group of a Parquet file.

    DuckDB reads them: pyarrow ends the whole process over a column whose statistics contradict its type.

    Raises:
        duckdb.Error: the footer cannot be read.
    """
    with duckdb.connect() as con:
        con.execute("SET autoinstall_known_extensions = false")
        rows = con.execute(
            "SELECT row_group_id, row_group_num_rows, path_in_schema, total_compressed_size, total_uncompressed_size,"
            " num_values FROM parquet_metadata($file) ORDER BY row_group_id, column_id",
            {"file": _literal(file)},
        ).fetchall()
    found: dict[int, tuple[int, list[Chunk]]] = {}
    for group, count, path, *sizes in rows:
        found.setdefault(group, (count, []))[1].append(Chunk(tuple(path.split(", ")), *sizes))
    return list(found.values())


def _literal(file: Path) -> str:
    """The path for DuckDB, which would take some characters for a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))


def batch_rows(source: str, rows: int, columns: Sequence[Chunk], wanted: AbstractSet[str]) -> int:
    """Rows of a Parquet row group that unpack to about `BLOCK_BYTES`.

    Args:
        source: the file, for errors.
        rows: of the row group.
        columns: its columns.
        wanted: columns that are read.

    Raises:
        DataError: its rows are larger than rows can be.
    """
    read = [column for column in columns if column.path[0] in wanted]
    rows = max(rows, 1)
    for column in read:
        packed, unpacked = column.packed, column.unpacked
        if len(column.path) > 1:  # a list: a run of equal values is a few bytes in the file
            unpacked += 16 * column.values
        if unpacked < 0 or unpacked > LARGEST_ROW * rows or unpacked > max(LARGE, STEEPEST * packed):
            raise DataError(
                source,
                f"{rows} rows unpack from {packed} to {unpacked} bytes",
                column=".".join(column.path),
                expected=f"at most {STEEPEST} times as many, and {LARGEST_ROW >> 20} MiB a row",
            )
    size = sum(column.unpacked + 16 * column.values for column in read)
    return int(np.clip(BLOCK_BYTES * rows // max(size, 1), 1, MOST_BATCH_ROWS))


def cut(values: pa.Array) -> pa.Array:
    """The values, those longer than the bounds cut to one more than they allow; coded ones stay coded."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        short = cut(values.dictionary)
        return values if short is values.dictionary else pa.DictionaryArray.from_arrays(values.indices, short)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        return pc.utf8_slice_codeunits(values, 0, LONGEST_TEXT + 1) if longest > LONGEST_TEXT else values
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _cut_lists(values)
    return values


def slices(columns: Sequence[pa.Array]) -> Iterator[slice]:
    """Consecutive slices of rows that decode to about `BLOCK_BYTES` each.

    Args:
        columns: of one length.
    """
    rows = len(columns[0]) if columns else 0
    if not rows:
        return
    block = np.cumsum(sum(_decoded_bytes(column) for column in columns)) // BLOCK_BYTES
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), rows]
    yield from (slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True))


def _decoded_bytes(values: pa.Array) -> Ints:
    """About how many bytes each row takes once it is decoded, int64 [rows]."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        lengths = _decoded_bytes(values.dictionary)
        at = values.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.asarray(lengths[at] if len(lengths) else np.full(len(values), 8), dtype=np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(lengths, dtype=np.int64) + 8
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets, inner = _lists(values)
        total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(_decoded_bytes(inner))])
        return np.asarray(total[offsets[1:]] - total[offsets[:-1]] + 8, dtype=np.int64)
    return np.full(len(values), 8, dtype=np.int64)


def _cut_lists(values: pa.Array) -> pa.Array:
    offsets, inner = _lists(values)
    lengths = np.diff(offsets)
    longest = lengths.max(initial=0)
    if longest > LONGEST_LIST + 1:
        kept = np.minimum(lengths, LONGEST_LIST + 1)
        starts = np.cumsum(kept) - kept
        inner = inner.take(pa.array(np.arange(kept.sum()) + np.repeat(offsets[:-1] - starts, kept)))
        lengths = kept
    short = cut(inner)
    if longest <= LONGEST_LIST + 1 and short is inner:
        return values
    new = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), pa.int32())
    return pa.ListArray.from_arrays(new, short, mask=values.is_null() if values.null_count else None)


def _lists(values: pa.Array) -> tuple[Ints, pa.Array]:
    """Offsets from 0 of a list array, int64 [rows + 1], and the values that it holds, those of null lists left out."""
    lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]), values.flatten()
