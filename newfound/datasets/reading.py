"""Source files, whatever their layout, to one staged Parquet each: wanted columns only, every row numbered.

Staging reads a source from end to end, so a broken file is found before anything is written where it matters. Ids
become strings and datetimes microseconds since the epoch; other values stay as they are, for `checks` to judge.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from newfound.errors import DataError
from newfound.schema import ITEM, TIME, USER

ROW = "row"
IDS = (USER, ITEM)
BLOCK_BYTES = 8 << 20
_SEPARATOR = b"\x1f"  # stands in for delimiters of more than one byte
_CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Layout:
    """How a delimited file is to be read."""

    delimiter: str = ","
    names: tuple[str, ...] | None = None  # None: the first line is a header
    quoted: bool = True
    legacy: bool = False  # Latin-1 where it is not UTF-8, as GroupLens used to write


@dataclass(frozen=True)
class SourceFile:
    """A file, and what its columns are called in newfound's terms."""

    path: Path
    columns: Mapping[str, str]  # newfound's name -> the file's
    required: tuple[str, ...]
    layout: Layout | None = None  # None: Parquet or CSV, as the file itself says


@dataclass(frozen=True)
class Staged:
    """A staged source."""

    source: str  # the file's path, for errors
    path: Path
    columns: Mapping[str, str]  # newfound's name -> the file's, of the columns that are there
    rows: int  # data rows in the source, malformed ones included
    datetimes: bool  # whether the time column was typed as datetimes
    malformed: tuple[tuple[int, str], ...] = field(default=())  # row and text


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage(file: SourceFile, out: Path) -> Staged:
    """Reads `file` to its end and writes the wanted columns, under newfound's names, to the Parquet `out`.

    Raises:
        DataError: the file is missing, empty, broken, not UTF-8, lacks a required column, or holds a column of a type
            that cannot be used.
    """
    source = str(file.path)
    if not file.path.is_file():
        raise DataError(source, "no such file", expected="a readable file")
    if file.path.stat().st_size == 0:
        raise DataError(source, "the file is empty", expected="at least one row")
    malformed: list[tuple[int, str]] = []
    try:
        if file.layout is None and _is_parquet(file.path):
            names, batches = _parquet(file)
        else:
            names, batches = _delimited(file, malformed)
        rows, datetimes = _write(source, names, batches, malformed, out)
    except DataError:
        raise
    except (pa.ArrowException, OSError, UnicodeError) as error:
        if (line := _undecodable(file)) is not None:
            raise DataError(source, "is not UTF-8 here", row=line, expected="UTF-8 text") from error
        reason = " ".join(str(error).split())[:300]
        raise DataError(source, f"cannot be read ({reason})", expected="a sound Parquet or CSV file") from error
    total = rows + len(malformed)
    if total == 0:
        raise DataError(source, "holds no rows", expected="at least one row")
    return Staged(source, out, names, total, datetimes, tuple(malformed))


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
    for column in names.values():
        if there.count(column) > 1:
            raise DataError(str(file.path), "the column is there twice", column=column, expected="it once")
    return names


def _parquet(file: SourceFile) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    parquet = pq.ParquetFile(file.path)
    names = _wanted(file, parquet.schema_arrow.names)
    return names, parquet.iter_batches(columns=list(names.values()))


def _delimited(file: SourceFile, malformed: list[tuple[int, str]]) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    tabs = file.path.name.lower().removesuffix(".gz").endswith(".tsv")
    layout = file.layout or Layout(delimiter="\t" if tabs else ",")
    delimiter, stream = _open(file.path, layout)
    header = list(layout.names) if layout.names else _header(file.path, delimiter, layout)
    names = _wanted(file, header)

    def skip(row: pacsv.InvalidRow) -> str:
        # The reader counts the header as row 1 where there is one.
        malformed.append((row.number - (0 if layout.names else 1), row.text))
        return "skip"

    reader = pacsv.open_csv(
        stream,
        read_options=pacsv.ReadOptions(
            use_threads=False,  # row numbers are only known to a serial reader
            block_size=BLOCK_BYTES,
            column_names=list(layout.names) if layout.names else None,
            encoding="latin1" if layout.legacy and not _is_utf8(file.path) else "utf8",
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.quoted,
            invalid_row_handler=skip,
        ),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(names.values()),
            column_types={column: pa.string() for column in names.values()},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return names, iter(reader)


def _open(path: Path, layout: Layout) -> tuple[str, pa.NativeFile]:
    if len(layout.delimiter) == 1:
        return layout.delimiter, pa.input_stream(str(path))
    replaced = path.read_bytes().replace(layout.delimiter.encode(), _SEPARATOR)
    return _SEPARATOR.decode(), pa.BufferReader(replaced)


def _header(path: Path, delimiter: str, layout: Layout) -> list[str]:
    with pa.input_stream(str(path)) as stream:
        start = stream.read(1 << 16).decode("utf-8-sig", errors="replace")
    lines = csv.reader(start.splitlines(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if layout.quoted else 3)
    return next((line for line in lines if line), [])


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def _undecodable(file: SourceFile) -> int | None:
    """The first data row of a text file that is not UTF-8, if there is one, taking a line for a row."""
    if file.layout is None and _is_parquet(file.path):
        return None
    row = 0 if file.layout and file.layout.names else -1  # the header is no data row
    try:
        with pa.input_stream(str(file.path)) as stream, io.BufferedReader(stream) as lines:
            for line in lines:
                row += 1
                line.decode()
    except UnicodeDecodeError:
        return row
    except (OSError, pa.ArrowException):
        return None
    return None


def _write(
    source: str,
    names: Mapping[str, str],
    batches: Iterator[pa.RecordBatch],
    malformed: list[tuple[int, str]],
    out: Path,
) -> tuple[int, bool]:
    writer: pq.ParquetWriter | None = None
    rows, datetimes = 0, False
    try:
        for batch in batches:
            columns = {}
            for name, column in names.items():
                values = batch.column(column)
                datetimes |= name == TIME and pa.types.is_temporal(values.type)
                columns[name] = _plain(source, name, column, values)
            columns[ROW] = _numbers(rows, batch.num_rows, malformed)
            plain = pa.table(columns)
            writer = writer or pq.ParquetWriter(out, plain.schema)
            writer.write_table(plain)
            rows += batch.num_rows
    finally:
        if writer:
            writer.close()
    return rows, datetimes


def _numbers(start: int, count: int, malformed: list[tuple[int, str]]) -> pa.Array:
    """Data row numbers from 1, with the skipped malformed rows counted in."""
    kept = np.arange(start, start + count, dtype=np.int64)
    # The k-th malformed row (both counted from 0) at data row m has m - 1 - k sound rows before it.
    before = np.array([row - 1 - k for k, (row, _) in enumerate(malformed)], dtype=np.int64)
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
