"""Source files, whatever their layout, to one staged Parquet each: wanted columns only, every row numbered.

Staging reads a source from end to end, so a broken file is found before anything is written where it matters. Ids
become strings and datetimes microseconds since the epoch; other values stay as they are, for `checks`. Memory
stays bounded whatever a file unpacks to: see `newfound.datasets.bounds`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.datasets.bounds import BLOCK_BYTES, MOST_BATCH_ROWS, batch_rows, cut, row_groups, slices
from newfound.datasets.delimited import Layout, first_invalid_line, open_delimited
from newfound.datasets.sequences import open_sequences
from newfound.errors import DataError
from newfound.schema import ITEM, TIME, USER

ROW = "row"
IDS = (USER, ITEM)
_CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class SourceFile:
    """A file, and what its columns are called in newfound's terms."""

    path: Path
    columns: Mapping[str, str]  # newfound's name -> the file's
    required: tuple[str, ...]
    layout: Layout | None = None  # None: Parquet, CSV or histories line by line, as the file itself says
    alone: bool = False  # whether a further column is an error


@dataclass
class Malformed:
    """Rows of a delimited file that have another number of fields than its first line."""

    rows: array[int] = field(default_factory=lambda: array("q"))  # data row numbers, ascending
    first: str = ""  # the first one's text, cut off

    def add(self, row: int, text: str) -> None:
        """Counts a row."""
        if not self.rows:
            self.first = text[:200]
        self.rows.append(row)


@dataclass(frozen=True)
class Staged:
    """A staged source."""

    source: str  # the file's path, for errors
    path: Path
    columns: Mapping[str, str]  # newfound's name -> the file's, of the columns that are there
    rows: int  # data rows in the source, malformed ones included
    datetimes: bool  # whether the time column was typed as datetimes
    malformed: Malformed = field(default_factory=Malformed)


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage(file: SourceFile, out: Path) -> Staged:
    """Reads `file` to its end and writes the wanted columns, under newfound's names, to the Parquet `out`.

    Raises:
        DataError: the file is missing, empty, broken, not UTF-8, lacks a required column, holds a column of a type
            that cannot be used, or rows too large for anybody's memory.
    """
    source = str(file.path)
    if not file.path.is_file():
        raise DataError(source, "no such file", expected="a readable file")
    if file.path.stat().st_size == 0:
        raise DataError(source, "the file is empty", expected="at least one row")
    malformed = Malformed()
    is_parquet = file.layout is None and _is_parquet(file.path)
    try:
        if is_parquet:
            names, batches = _parquet(file)
        elif file.layout is None and file.path.suffix.lower() == ".txt":
            names, batches = open_sequences(file.path)
        else:
            names, batches = _delimited(file, malformed)
        rows, datetimes = _write(source, names, batches, malformed, out)
    except DataError:
        raise
    except (pa.ArrowException, duckdb.Error, OSError, UnicodeError) as error:
        if not is_parquet and (line := first_invalid_line(file.path)) is not None:
            row = line + (1 if file.layout and file.layout.names else 0)  # the header is no data row
            raise DataError(source, "is not UTF-8 here", row=row, expected="UTF-8 text") from error
        reason = " ".join(str(error).split())[:300]
        raise DataError(source, f"cannot be read ({reason})", expected="a sound Parquet, CSV or text file") from error
    if rows == 0:
        problem = "no row has as many fields as the first line" if malformed.rows else "holds no rows"
        raise DataError(source, problem, expected="at least one row")
    return Staged(source, out, names, rows + len(malformed.rows), datetimes, malformed)


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    if path.name.lower().endswith(_CSV_SUFFIXES):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _wanted(file: SourceFile, there: list[str]) -> dict[str, str]:
    for name in file.required:
        if file.columns[name] not in there:
            raise DataError(
                str(file.path),
                "the column is missing",
                column=file.columns[name],
                expected=f"columns {[file.columns[each] for each in file.required]} (found: {', '.join(there)[:200]})",
            )
    names = {name: column for name, column in file.columns.items() if column in there}
    known_columns = file.columns.values()
    unknown = [one for one in there if one not in known_columns and not one.startswith("__index_level_")]  # of pandas
    if file.alone and unknown:
        known = ", ".join(file.columns.values())
        raise DataError(str(file.path), "nobody reads this column", column=unknown[0], expected=f"none but {known}")
    for column in names.values():
        if there.count(column) > 1:
            raise DataError(str(file.path), "the column is there twice", column=column, expected="it once")
    return names


def _parquet(file: SourceFile) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    # Text stays a dictionary where it is one in the file, so that a value is held once however often it comes.
    with pq.ParquetFile(file.path) as opened:
        names = _wanted(file, opened.schema_arrow.names)
        leaves = [opened.schema.column(at) for at in range(len(opened.schema))]
        coded = [
            leaf.path
            for leaf in leaves
            if leaf.physical_type == "BYTE_ARRAY" and leaf.path.split(".")[0] in names.values()
        ]
    groups = enumerate(row_groups(file.path))
    rows = [(at, batch_rows(str(file.path), count, columns, {*names.values()})) for at, (count, columns) in groups]

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(file.path, read_dictionary=coded, pre_buffer=False, buffer_size=BLOCK_BYTES) as parquet:
            for group, size in rows:
                yield from parquet.iter_batches(size, row_groups=[group], columns=list(names.values()))

    return names, batches()


def _delimited(file: SourceFile, malformed: Malformed) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    tabs = file.path.name.lower().removesuffix(".gz").endswith(".tsv")
    layout = file.layout or Layout(delimiter="\t" if tabs else ",")
    return open_delimited(file.path, layout, lambda header: _wanted(file, header), malformed.add)


def _write(
    source: str, names: Mapping[str, str], batches: Iterator[pa.RecordBatch], malformed: Malformed, out: Path
) -> tuple[int, bool]:
    writer: pq.ParquetWriter | None = None
    rows, datetimes = 0, False
    try:
        for batch in batches:
            batch.validate(full=True)  # offsets and UTF-8 of a file that lies
            datetimes |= any(
                name == TIME and pa.types.is_temporal(batch.column(column).type) for name, column in names.items()
            )
            short = {name: cut(batch.column(column)) for name, column in names.items()}
            for part in slices(list(short.values())):
                columns = {
                    name: _plain(source, name, names[name], values.slice(part.start, part.stop - part.start))
                    for name, values in short.items()
                }
                columns[ROW] = _numbers(rows, part.stop - part.start, malformed)
                plain = pa.table(columns)
                writer = writer or pq.ParquetWriter(out, plain.schema)
                writer.write_table(plain, row_group_size=MOST_BATCH_ROWS)
                rows += plain.num_rows
    finally:
        if writer:
            writer.close()
    return rows, datetimes


def _numbers(start: int, count: int, malformed: Malformed) -> pa.Array:
    """Data row numbers from 1, with the skipped malformed rows counted in."""
    kept = np.arange(start, start + count, dtype=np.int64)
    # The k-th malformed row (both counted from 0) at data row m has m - 1 - k sound rows before it.
    skipped = np.frombuffer(malformed.rows, dtype=np.int64) if malformed.rows else np.zeros(0, dtype=np.int64)
    before = skipped - 1 - np.arange(len(skipped))
    return pa.array(kept + 1 + np.searchsorted(before, kept, side="right"))


def _plain(source: str, name: str, column: str, values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if name in IDS:
        if text or pa.types.is_integer(kind):
            return values.cast(pa.string())
        raise DataError(source, f"is of type {kind}", column=column, expected="strings or integers")
    if text:
        return values.cast(pa.string())
    if name == TIME and pa.types.is_temporal(kind):
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            # A datetime without a zone is UTC already.
            zone = getattr(kind, "tz", None)
            return values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
        raise DataError(source, f"is of type {kind}", column=column, expected="datetimes or integers")
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return values
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return values.cast(pa.list_(pa.string()))
    raise DataError(source, f"is of type {kind}", column=column, expected="a column of plain values")
