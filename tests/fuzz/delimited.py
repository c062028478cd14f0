"""Fuzz target: interactions and items as CSV, as tabs and with a delimiter of two bytes, up to the checks."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Final

from newfound.config import DataConfig
from newfound.datasets.checks import BadRows, check_items
from newfound.datasets.delimited import Layout
from newfound.datasets.engine import connect, drop
from newfound.datasets.reading import SourceFile, stage
from newfound.datasets.sources import open_source
from newfound.errors import DataError

SHARE: Final = 0.03
_LAYOUTS: Final = (None, Layout("::", ("item_id", "title", "text"), quoted=False, legacy=True), Layout("\t"))
_COLUMNS: Final = {name: name for name in ("item_id", "title", "text", "categories")}
_CSV: Final = b'item_id,title,categories\n1,One,a|b\n2,"Two, too",\n,,\n'
SEEDS: Final = [
    b"\0" + _CSV,
    b"\0" + _CSV.replace(b"\n", b"\r\n"),
    b"\0\xef\xbb\xbf" + _CSV,
    b"\1" + b"1::One::a\n2::Two::\xe9\n3:::::\n",
    b"\2" + _CSV.replace(b",", b"\t"),
    b"\3" + gzip.compress(_CSV, mtime=0),
    b'\0item_id,title\n1,"open\n2,x\n',
    b"\2item_id\ttitle\tcategories\n1",  # no row is sound
]


class Target:
    """A file is refused by name, or its rows are counted: those that are kept and those that are not."""

    def __init__(self) -> None:
        place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="newfound-fuzz-", dir=place)
        self.folder = Path(self._folder.name)
        (self.folder / "none.csv").touch()
        self.source = open_source(DataConfig(loader="files", interactions=str(self.folder / "none.csv")))
        self.con = connect()
        self.inputs = 0

    def __call__(self, data: bytes) -> None:
        kind = data[0] % 4 if data else 0
        file = self.folder / ("items.csv.gz" if kind == 3 else "items.csv")
        file.write_bytes(data[1:])
        # A file of its own for each input: DuckDB keeps what it has read of a path, and knows a new file by its time.
        self.inputs += 1
        out = self.folder / f"staged-{self.inputs}.parquet"
        try:
            staged = stage(SourceFile(file, _COLUMNS, ("item_id", "title"), _LAYOUTS[kind % 3]), out)
            bad = BadRows(staged, 1.0)
            kept = check_items(self.con, self.source, bad, staged).count().execute()
        except DataError as error:
            assert str(file) in str(error)
            return
        finally:
            out.unlink(missing_ok=True)
        drop(self.con, "items")
        assert kept + bad.count == staged.rows
