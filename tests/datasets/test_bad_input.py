"""Bad input is refused by file, column, row and expectation before anything is written, or dropped and counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.errors import DataError

ROWS = 12


def good_events() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [f"u{row % 3}" for row in range(ROWS)],
            "item_id": [f"i{row % 4}" for row in range(ROWS)],
            "timestamp": [1_700_000_000 + 60 * row for row in range(ROWS)],
            "engagement": [0.5] * ROWS,
        }
    )


def good_items() -> pd.DataFrame:
    return pd.DataFrame({"item_id": [f"i{row}" for row in range(4)], "title": ["A", "B", "C", "D"]})


class Source:
    """Writes files and loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out" / "dataset"
        self.interactions, self.items = folder / "events.csv", folder / "items.csv"
        good_events().to_csv(self.interactions, index=False)
        good_items().to_csv(self.items, index=False)

    def load(self, **settings: Any) -> dict[str, Any]:
        config = {"loader": "files", "interactions": str(self.interactions), "min_user_events": 1, **settings}
        if self.items.exists():
            config["items"] = str(self.items)
        load_interactions(DataConfig(**config), SplitConfig(), 1, self.out)
        return Dataset(self.out).info

    def refused(self, **settings: Any) -> DataError:
        with pytest.raises(DataError) as caught:
            self.load(**settings)
        assert not self.out.exists(), "something was written"
        assert not self.out.parent.exists() or not list(self.out.parent.iterdir()), "something was left behind"
        return caught.value


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def change(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = frame[column].astype(object)
        frame.loc[row - 1, column] = value
        return frame

    return changed


EVENTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str, int, str, str]] = {
    "null user": (change(4, "user_id", None), "user_id", 4, "is empty", "an id in every row"),
    "null item": (change(5, "item_id", ""), "item_id", 5, "is empty", "an id in every row"),
    "long id": (change(2, "user_id", "x" * 300), "user_id", 2, "long id", "256"),
    "unknown item": (change(7, "item_id", "i99"), "item_id", 7, "'i99'", "an item of the items file"),
    "too much engagement": (change(3, "engagement", 1.5), "engagement", 3, "'1.5'", "a number from 0 to 1"),
    "negative engagement": (change(3, "engagement", -0.1), "engagement", 3, "'-0.1'", "a number from 0 to 1"),
    "engagement not a number": (change(12, "engagement", "nan"), "engagement", 12, "'nan'", "a number from 0 to 1"),
    "engagement text": (change(12, "engagement", "much"), "engagement", 12, "'much'", "a number from 0 to 1"),
    "engagement missing": (change(12, "engagement", None), "engagement", 12, "is empty", "a number from 0 to 1"),
    "infinite engagement": (change(1, "engagement", "inf"), "engagement", 1, "'inf'", "a number from 0 to 1"),
    "time missing": (change(6, "timestamp", None), "timestamp", 6, "is empty", "whole UTC seconds"),
    "time text": (change(6, "timestamp", "soon"), "timestamp", 6, "'soon'", "whole UTC seconds"),
    "time zero": (change(6, "timestamp", 0), "timestamp", 6, "'0'", "from 1973"),
    "time fraction": (change(6, "timestamp", 1700000000.5), "timestamp", 6, "'1700000000.5'", "whole UTC seconds"),
    "time in another unit": (change(6, "timestamp", 1700000000000), "timestamp", 6, "'1700000000000'", "to 2199"),
    "infinite time": (change(6, "timestamp", "inf"), "timestamp", 6, "'inf'", "whole UTC seconds"),
    "same event twice": (
        lambda frame: pd.concat([frame, frame.iloc[[2]]]), "timestamp", 13, "duplicate event", "one row a user",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EVENTS)
def test_bad_event_is_refused(source: Source, case: str) -> None:
    spoil, column, row, problem, expected = EVENTS[case]
    spoil(good_events()).to_csv(source.interactions, index=False)
    error = source.refused()
    assert (error.source, error.column, error.row) == (str(source.interactions), column, row)
    assert problem in error.problem and expected in error.expected


@pytest.mark.parametrize("case", [case for case in EVENTS if "text" not in case])
def test_bad_event_in_parquet_is_refused(source: Source, case: str) -> None:
    spoil, column, row, _, expected = EVENTS[case]
    frame = spoil(good_events())
    if column == "engagement" or case.startswith(("time", "infinite")):
        frame[column] = frame[column].astype(float)
    source.interactions = source.interactions.with_suffix(".parquet")
    frame.to_parquet(source.interactions)
    error = source.refused()
    assert (error.source, error.column, error.row) == (str(source.interactions), column, row)
    assert expected in error.expected


@pytest.mark.parametrize(
    ("spoil", "row", "problem"),
    [
        (change(2, "item_id", None), 2, "is empty"),
        (change(3, "item_id", "i0"), 3, "duplicate item 'i0'"),
        (change(4, "item_id", "y" * 257), 4, "long id"),
    ],
)
def test_bad_item_is_refused(
    source: Source, spoil: Callable[[pd.DataFrame], pd.DataFrame], row: int, problem: str
) -> None:
    spoil(good_items()).to_csv(source.items, index=False)
    error = source.refused()
    assert (error.source, error.column, error.row) == (str(source.items), "item_id", row)
    assert problem in error.problem


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_missing_column_is_named(source: Source, column: str, kind: str) -> None:
    frame = good_events().drop(columns=column)
    source.interactions = source.interactions.with_suffix(f".{kind}")
    frame.to_csv(source.interactions, index=False) if kind == "csv" else frame.to_parquet(source.interactions)
    error = source.refused()
    assert error.column == column
    assert "missing" in error.problem and "user_id" in error.expected


def test_missing_title_is_named(source: Source) -> None:
    good_items().drop(columns="title").to_csv(source.items, index=False)
    error = source.refused()
    assert (error.source, error.column) == (str(source.items), "title")


def test_column_twice(source: Source) -> None:
    source.interactions.write_text("user_id,item_id,timestamp,item_id\na,i0,1700000000,i1\n")
    assert source.refused().problem == "the column is there twice"


@pytest.mark.parametrize("which", ["interactions", "items"])
def test_empty_file(source: Source, which: str) -> None:
    getattr(source, which).write_text("")
    error = source.refused()
    assert error.source == str(getattr(source, which)) and "empty" in error.problem


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_rows(source: Source, kind: str) -> None:
    frame = good_events().iloc[:0]
    source.interactions = source.interactions.with_suffix(f".{kind}")
    frame.to_csv(source.interactions, index=False) if kind == "csv" else frame.to_parquet(source.interactions)
    assert source.refused().problem == "holds no rows"


def test_missing_file(source: Source) -> None:
    source.interactions = source.folder / "elsewhere.csv"
    assert source.refused().problem == "no such file"


@pytest.mark.parametrize("damage", ["cut", "header", "middle", "text"])
def test_broken_parquet(source: Source, damage: str) -> None:
    source.interactions = source.interactions.with_suffix(".parquet")
    big = pd.concat([good_events()] * 500).reset_index(drop=True)
    big["timestamp"] += range(len(big))
    pq.write_table(pa.Table.from_pandas(big), source.interactions, compression="zstd")
    whole = source.interactions.read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "header": b"XXXX" + whole[4:],
        "middle": whole[:40] + bytes(200) + whole[240:],
        "text": b"user_id,item_id,timestamp\n",
    }[damage]
    source.interactions.write_bytes(broken)
    if damage == "header":
        # Readers go by the footer; the leading mark alone is no damage to the rows.
        assert source.load()["counts"]["interactions"] == len(big)
        return
    error = source.refused()
    assert error.source == str(source.interactions) and "cannot be read" in error.problem


def test_row_with_another_number_of_fields(source: Source) -> None:
    lines = source.interactions.read_text().splitlines()
    lines[5] += ",9,9"
    lines[8] = "u1"
    source.interactions.write_text("\n".join(lines) + "\n")
    error = source.refused()
    assert error.row == 5 and "malformed row 2" in error.problem and "fields" in error.problem


def test_unclosed_quote_is_refused(source: Source) -> None:
    source.interactions.write_text(source.interactions.read_text().replace("u1,", '"u1,', 1))
    assert source.refused().source == str(source.interactions)


def test_not_utf8(source: Source) -> None:
    lines = source.items.read_bytes().splitlines()
    lines[2] = "i1,Amélie".encode("latin-1")
    source.items.write_bytes(b"\n".join(lines) + b"\n")
    error = source.refused()
    assert (error.source, error.row) == (str(source.items), 2) and "UTF-8" in error.problem + error.expected


def test_ids_as_floats(source: Source) -> None:
    source.interactions = source.interactions.with_suffix(".parquet")
    good_events().assign(user_id=1.0).to_parquet(source.interactions)
    error = source.refused()
    assert error.column == "user_id" and "double" in error.problem and "strings or integers" in error.expected


@pytest.mark.parametrize(
    ("values", "problem"), [([True] * 11 + [None], "is empty"), (["yes"] * 11 + ["perhaps"], "perhaps")]
)
def test_bad_positive(source: Source, values: list[object], problem: str) -> None:
    good_events().assign(positive=values).to_csv(source.interactions, index=False)
    error = source.refused()
    assert (error.column, error.row, error.expected) == ("positive", 12, "true or false") and problem in error.problem


def test_rating_outside_its_scale(source: Source) -> None:
    frame = good_events().drop(columns="engagement").assign(rating=[5] * 11 + [6])
    frame.to_csv(source.interactions, index=False)
    error = source.refused(rating_scale=(1, 5))
    assert (error.column, error.row, error.expected) == ("rating", 12, "a number from 1 to 5")


def test_rating_without_a_scale(source: Source) -> None:
    good_events().drop(columns="engagement").assign(rating=3).to_csv(source.interactions, index=False)
    error = source.refused()
    assert error.column == "rating" and "rating_scale" in error.expected


def test_configured_time_that_the_column_does_not_hold(source: Source) -> None:
    assert source.refused(time="datetime").row == 1
    frame = good_events()
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s")
    source.interactions = source.interactions.with_suffix(".parquet")
    frame.to_parquet(source.interactions)
    assert source.refused(time="seconds").row == 1


def test_filter_that_leaves_nobody(source: Source) -> None:
    error = source.refused(min_user_events=100)
    assert "min_user_events" in error.expected


def test_every_bad_row_is_counted_in_the_error(source: Source) -> None:
    frame = change(9, "engagement", 7)(change(4, "user_id", None)(change(11, "timestamp", "x")(good_events())))
    frame.to_csv(source.interactions, index=False)
    error = source.refused()
    assert error.row == 4
    assert "3 bad rows of 12: bad engagement 1, bad timestamp 1, null id 1" in error.problem


def test_tolerated_rows_are_dropped_counted_and_logged(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    frame = change(4, "user_id", None)(change(11, "item_id", "i99")(good_events()))
    frame = pd.concat([frame, frame.iloc[[0]]])
    frame.to_csv(source.interactions, index=False)
    with source.interactions.open("a") as file:
        file.write("u1\n")
        file.write("u2,i2,1800000000,1\n")
    with caplog.at_level(logging.WARNING):
        info = source.load(bad_rows=0.3)
    kinds = {"duplicate event": 1, "malformed row": 1, "null id": 1, "unknown item": 1}
    assert info["bad_rows"]["interactions"] == {"rows": 15, "dropped": 4, "kinds": kinds}
    assert info["counts"]["interactions"] == 11
    assert "4 bad rows dropped" in caplog.text
    dropped = Dataset(source.out).frame("interactions")
    assert "i99" not in set(dropped["item_id"]) and not dropped.duplicated(["user_id", "item_id", "timestamp"]).any()


def test_one_bad_row_more_than_tolerated(source: Source) -> None:
    frame = change(4, "user_id", None)(change(11, "item_id", "i99")(good_events()))
    frame.to_csv(source.interactions, index=False)
    assert source.refused(bad_rows=1.9 / 12).row == 4
    assert source.load(bad_rows=2 / 12)["counts"]["interactions"] == 10


def test_row_numbers_survive_skipped_rows(source: Source) -> None:
    lines = source.interactions.read_text().splitlines()
    lines.insert(3, "short")
    lines.insert(7, "short")
    lines[9] = lines[9].replace("0.5", "2.5")  # data row 9
    source.interactions.write_text("\n".join(lines) + "\n")
    info = source.load(bad_rows=0.5)
    assert info["bad_rows"]["interactions"]["kinds"] == {"bad engagement": 1, "malformed row": 2}
    lines[3], lines[7] = lines[1].replace("i0", "i1"), lines[1].replace("i0", "i2")
    source.interactions.write_text("\n".join(lines) + "\n")
    source.out = source.folder / "again" / "dataset"
    assert source.refused().row == 9


def test_the_old_data_set_survives_a_failed_load(source: Source) -> None:
    source.load()
    before = json.loads((source.out / "dataset.json").read_text())
    source.interactions.write_text("user_id\n")
    with pytest.raises(DataError):
        source.load()
    assert Dataset(source.out).info == before
