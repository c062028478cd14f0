"""Delimited text files, block by block: CSV, tabs, or delimiters of several bytes, gzipped or not."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from newfound.datasets.bounds import BLOCK_BYTES

_SEPARATOR = b"\x1f"  # stands in for delimiters of more than one byte
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Layout:
    """Dialect of a delimited file."""

    delimiter: str = ","
    names: tuple[str, ...] | None = None  # None: the first line is a header
    quoted: bool = True
    legacy: bool = False  # Latin-1 where it is not UTF-8, as GroupLens used to write


def open_delimited(
    path: Path,
    layout: Layout,
    wanted: Callable[[list[str]], dict[str, str]],
    malformed: Callable[[int, str], None],
) -> tuple[dict[str, str], Iterator[pa.RecordBatch]]:
    """Opens a file for one pass over its wanted columns, all of them text.

    Args:
        path: the file.
        layout: how it is to be read.
        wanted: chooses columns by the header, as newfound's name -> the file's; may raise.
        malformed: told data row and text of every row with another number of fields; such rows are skipped.

    Returns:
        The chosen columns, and the batches.

    Raises:
        pa.ArrowException: a batch cannot be parsed; a row may not be longer than a block.
    """
    delimiter = layout.delimiter if len(layout.delimiter) == 1 else _SEPARATOR.decode()
    names = wanted(list(layout.names) if layout.names else _header(path, delimiter, layout))

    def skip(row: pacsv.InvalidRow) -> str:
        # The reader counts the header as row 1 where there is one.
        malformed(row.number - (0 if layout.names else 1), row.text)
        return "skip"

    reader = pacsv.open_csv(
        _stream(path, layout),
        read_options=pacsv.ReadOptions(
            use_threads=False,  # row numbers are only known to a serial reader
            block_size=BLOCK_BYTES,
            column_names=list(layout.names) if layout.names else None,
            encoding="latin1" if layout.legacy and first_invalid_line(path) is not None else "utf8",
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


def first_invalid_line(path: Path) -> int | None:
    """Number of lines before the first one that is not UTF-8; None where all are, or the file cannot be read."""
    decode, lines = codecs.getincrementaldecoder("utf-8")().decode, 0
    try:
        with pa.input_stream(str(path)) as stream:
            while True:
                block = stream.read(1 << 20)
                decode(block, final=not block)
                if not block:
                    return None
                lines += block.count(b"\n")
    except UnicodeDecodeError as error:
        return lines + error.object[: error.start].count(b"\n")
    except (OSError, pa.ArrowException):
        return None


def _header(path: Path, delimiter: str, layout: Layout) -> list[str]:
    with pa.input_stream(str(path)) as stream:
        start = stream.read(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    try:
        lines = csv.reader(start.splitlines(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if layout.quoted else 3)
        return next((line for line in lines if line), [])
    except csv.Error as error:
        raise pa.ArrowInvalid(f"the header: {error}") from error


def _stream(path: Path, layout: Layout) -> pa.NativeFile:
    if len(layout.delimiter) == 1:
        return pa.input_stream(str(path))
    replaced = _Replaced(path.open("rb"), {layout.delimiter.encode(): _SEPARATOR})
    return pa.PythonFile(io.BufferedReader(replaced, 1 << 20), mode="r")


class _Replaced(io.RawIOBase):
    """A stream of bytes in which one sequence stands for another."""

    def __init__(self, source: io.BufferedReader, replacement: Mapping[bytes, bytes]) -> None:
        ((self._old, self._new),) = replacement.items()
        self._source, self._tail, self._ready = source, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._ready:
            block = self._source.read(1 << 20)
            *before, last = (self._tail + block).split(self._old)
            # What may be the beginning of the sequence waits for what comes after it.
            waits = (n for n in range(len(self._old) - 1, 0, -1) if block and last.endswith(self._old[:n]))
            kept = next(waits, 0)
            self._tail = last[len(last) - kept :]
            self._ready = self._new.join([*before, last[: len(last) - kept]])
            if not block:
                break
        count = min(len(into), len(self._ready))
        into[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()
