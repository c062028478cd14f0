"""What a small file may unpack to: memory stays bounded, and rows beyond the bounds are refused by name."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.datasets.bounds import LONGEST_LIST, LONGEST_TEXT
from newfound.datasets.delimited import Layout
from newfound.datasets.reading import SourceFile, stage
from newfound.errors import DataError
from newfound.types import Id

MEMORY_MB = 400  # what staging may take beside what its imports took
PROBE = """
import json, resource, sys
from pathlib import Path
from newfound.datasets.reading import SourceFile, stage
from newfound.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = []
for file in sys.argv[2:]:
    columns = {"item_id": "item_id", "title": "title", "categories": "categories"}
    try:
        staged = stage(SourceFile(Path(file), columns, ("item_id",)), Path(sys.argv[1]))
        said.append(staged.rows)
    except DataError as error:
        said.append(str(error))
print(json.dumps({"said": said, "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}))
"""


def _staged(tmp_path: Path, *files: Path) -> list[object]:
    """What a process of its own says of each file; it must not have taken more memory than it may."""
    command = [sys.executable, "-c", PROBE, str(tmp_path / "staged.parquet"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["mb"] < MEMORY_MB, found
    return list(found["said"])


def _items(file: Path, titles: pa.Array, categories: pa.Array | None = None, **options: bool) -> Path:
    rows = pa.array(range(len(titles)), pa.int64())
    columns = {"item_id": rows, "title": titles} | ({} if categories is None else {"categories": categories})
    pq.write_table(pa.table(columns), file, compression="zstd", row_group_size=1 << 20, **options)
    return file


def _repeated(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array([value]))


def _zipped(content: bytes) -> bytes:
    """One member of a gzip file; files may have many, one after the other."""
    return gzip.compress(content, mtime=0)


def test_small_files_that_unpack_to_gigabytes_do_not_fill_the_memory(tmp_path: Path) -> None:
    repeated = _items(tmp_path / "repeated.parquet", _repeated("x" * 60_000, 15_000))
    one = pa.array(["x" * (7 << 26)])
    page = _items(tmp_path / "page.parquet", one, use_dictionary=False, write_statistics=False)
    del one
    inner = _repeated("category", 30_000_000)
    lists = pa.ListArray.from_arrays(pa.array([0, 30_000_000], pa.int32()), inner)
    listed = _items(tmp_path / "listed.parquet", pa.array(["title"]), lists)
    line, fields = tmp_path / "line.csv.gz", tmp_path / "fields.csv.gz"
    line.write_bytes(_zipped(b"item_id,title\n1,") + _zipped(b"a" * (1 << 20)) * 768)
    fields.write_bytes(_zipped(b"item_id,title\n1,One\n") + _zipped((b"2,Two," + b"a" * 1000 + b"\n") * 1000) * 200)
    assert all(bomb.stat().st_size < 4 << 20 for bomb in (repeated, page, listed, line, fields))
    said = _staged(tmp_path, repeated, page, listed, line, fields)
    assert said[0] == 15_000 and said[4] == 200_001
    assert all("bytes" in str(said[at]) and "expected" in str(said[at]) for at in (1, 2)), said
    assert "cannot be read" in str(said[3])


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rows = [(f"u{n % 3}", f"i{n % 4}", 1_700_000_000 + n) for n in range(12)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    frame.to_parquet(tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


@pytest.mark.parametrize(
    ("title", "categories"),
    [
        ("x" * (LONGEST_TEXT + 1), ["a"]),
        ("A", ["a"] * (LONGEST_LIST + 1)),
        ("A", ["a", "x" * (LONGEST_TEXT + 9), None]),
    ],
)
def test_a_text_beyond_the_bounds_is_refused_or_dropped(
    tmp_path: Path, events: Path, title: str, categories: list[str]
) -> None:
    titles, lists = pa.array(["A", title, "C", "D"]), pa.array([["b"], categories, None, []])
    items = pa.table({"item_id": [f"i{n}" for n in range(4)], "title": titles, "categories": lists})
    pq.write_table(items, tmp_path / "items.parquet")
    config = DataConfig(
        loader="files", interactions=str(events), items=str(tmp_path / "items.parquet"), min_user_events=1
    )
    with pytest.raises(DataError, match=r"items\.parquet, column 'text', row 2: long text 'i1'"):
        load_interactions(config, SplitConfig(), 1, tmp_path / "out")
    tolerant = config.model_copy(update={"bad_rows": 0.5})
    load_interactions(tolerant, SplitConfig(), 1, tmp_path / "out")
    data = Dataset(tmp_path / "out")
    assert data.info["bad_rows"]["items"]["kinds"] == {"long text": 1}
    assert data.frame("items")["categories"].map(list).tolist() == [["b"], [], []]


def test_texts_and_lists_at_the_bounds_are_kept_as_they_are(tmp_path: Path) -> None:
    titles = pa.array(["é" * LONGEST_TEXT, None, "", "B"] * 2)
    lists = pa.array([["a"] * LONGEST_LIST, None, [], [None, "x" * LONGEST_TEXT]] * 2)
    for name, column in (
        ("plain", titles),
        ("coded", titles.dictionary_encode()),
        ("large", titles.cast("large_utf8")),
    ):
        file = _items(tmp_path / f"{name}.parquet", column, lists)
        columns = {"item_id": "item_id", "title": "title", "categories": "categories"}
        staged = stage(SourceFile(file, columns, ("item_id",)), tmp_path / "staged.parquet")
        found = pq.read_table(staged.path)
        assert found["title"].to_pylist() == titles.to_pylist()
        assert found["categories"].to_pylist() == lists.to_pylist()
        assert found["row"].to_pylist() == list(range(1, 9)) and staged.rows == 8


@pytest.mark.parametrize("delimiter", ["::", "ab", "|"])
def test_delimiters_are_found_wherever_a_block_ends(tmp_path: Path, delimiter: str) -> None:
    draw = random.Random(0)
    rows = [(str(n), "".join(draw.choice("xyz:") for _ in range(draw.randrange(1, 60)))) for n in range(60_000)]
    rows = [(one, re.sub(":+", ":", other.strip(":")) or "x") for one, other in rows]
    file = tmp_path / "items.dat"
    file.write_text("".join(f"{one}{delimiter}{other}\n" for one, other in rows))
    source = SourceFile(
        file, {"item_id": "id", "title": "t"}, ("item_id",), Layout(delimiter, ("id", "t"), quoted=False)
    )
    found = pq.read_table(stage(source, tmp_path / "staged.parquet").path)
    assert list(zip(found["item_id"].to_pylist(), found["title"].to_pylist(), strict=True)) == rows


def _ids() -> list[str]:
    """Ids of every kind that somebody may have: short, long, with marks of every alphabet, and with control codes."""
    draw = random.Random(1)
    planes = [(0x00, 0x20), (0x20, 0x7F), (0x7F, 0xA0), (0xA0, 0x3000), (0x3000, 0xD800), (0xE000, 0x11000)]
    found = ["", " ", "a b", "0", "x" * 256, "x" * 257, "é" * 256, "é" * 257, "𝕏" * 256, "a\n", "\na", "a\x00", "\x7f"]
    for _ in range(300):
        size = draw.choice((1, 2, 5, 30))
        found.append("".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(size)))
    return sorted(set(found))


def test_the_loader_takes_the_ids_that_events_take_and_no_others(tmp_path: Path) -> None:
    """What an event refused would be lost to feedback, and its batch with it."""

    def taken(one: str) -> bool:
        try:
            TypeAdapter(Id).validate_python(one)
        except ValidationError:
            return False
        return True

    ids = _ids()
    rows = [(one, "item", 1_700_000_000) for one in ids] + [
        ("user", one, 1_700_000_000 + n) for n, one in enumerate(ids)
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_parquet(tmp_path / "events.parquet")
    config = DataConfig(loader="files", interactions=str(tmp_path / "events.parquet"), min_user_events=1, bad_rows=1.0)
    load_interactions(config, SplitConfig(), 1, tmp_path / "out")
    kept = Dataset(tmp_path / "out").frame("interactions")
    expected = {one for one in ids if taken(one)}
    assert 100 < len(expected) < len(ids) - 50
    assert set(kept["user_id"]) - {"user"} == expected
    assert set(kept["item_id"]) - {"item"} == expected
