"""Fuzz target: items as Parquet, every byte of the file an input."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from newfound.datasets.reading import SourceFile, stage
from newfound.errors import DataError

SHARE: Final = 0.1
_COLUMNS: Final = {name: name for name in ("item_id", "title", "text", "categories")}


def _file(**options: Any) -> bytes:
    table = pa.table(
        {
            "item_id": pa.array([1, 2, 3]),
            "title": pa.array(["One", None, "Three"]),
            "categories": pa.array([["a", "b"], None, []]),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


SEEDS: Final = [
    _file(compression="none"),
    _file(compression="snappy"),
    _file(compression="zstd", use_dictionary=False),
    _file(compression="none", data_page_version="2.0", store_schema=False),
    b"PAR1PAR1",
]


class Target:
    """A file is refused by name, or all of its rows are staged."""

    def __init__(self) -> None:
        place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="newfound-fuzz-", dir=place)
        self.file = Path(self._folder.name) / "items.parquet"
        self.staged = Path(self._folder.name) / "staged.parquet"

    def __call__(self, data: bytes) -> None:
        self.file.write_bytes(data)
        try:
            staged = stage(SourceFile(self.file, _COLUMNS, ("item_id", "title")), self.staged)
        except DataError as error:
            assert str(self.file) in str(error)
            return
        assert pq.read_metadata(self.staged).num_rows == staged.rows
