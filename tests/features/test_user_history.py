"""The rows that Feast serves, and what comes back from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.datasets import Dataset
from newfound.errors import DataError
from newfound.features.histories import Histories
from newfound.features.user_history import check_histories, entity_rows, write_user_history

DAY = 86_400_000
START = int(pd.Timestamp("2024-01-01", tz="UTC").timestamp() * 1000)


def test_a_row_as_of_the_cut_and_one_as_of_the_end(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    assert write_user_history(three, 1000, out) == {"rows": 4, "users": 3, "cropped_users": 0}
    table = pq.read_table(out)
    assert table.schema.equals(schema.HISTORIES)
    rows = [(row["user_id"], row["item_ids"], row["event_timestamp"]) for row in table.to_pylist()]
    days = {day: pd.Timestamp(START + day * DAY, unit="ms", tz="UTC") for day in (2, 6, 8, 9)}
    assert rows == [
        ("a", ["d0", "d1", "d2"], days[2]),
        ("a", ["d0", "d1", "d2", "d7", "d8"], days[8]),
        ("b", ["d3", "d4", "d5", "d6"], days[6]),
        ("c", ["d9"], days[9]),
    ]
    assert table["times"][0].as_py() == [START, START + DAY, START + 2 * DAY]


def test_the_last_events_are_kept(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    assert write_user_history(three, 2, out)["cropped_users"] == 2
    rows = pq.read_table(out).to_pylist()
    assert [row["item_ids"] for row in rows] == [["d1", "d2"], ["d7", "d8"], ["d5", "d6"], ["d9"]]
    assert all(len(row[name]) == len(row["item_ids"]) for row in rows for name in ("times", "engagements", "positives"))


def test_asking_as_of_the_cut_leaves_the_event_at_the_cut_out(three: Path) -> None:
    cut = Dataset(three).frame("users").set_index("user_id")["cut"]
    assert cut["a"] == pd.Timestamp(START + 7 * DAY, unit="ms", tz="UTC")
    asked = entity_rows(three).set_index("user_id")["event_timestamp"]
    assert asked.index.tolist() == ["a", "b", "c"] and (asked < cut).all()
    assert (cut - asked == pd.Timedelta(1, "us")).all()
    assert (entity_rows(three, "end")["event_timestamp"] == pd.Timestamp(START + 9 * DAY, unit="ms", tz="UTC")).all()


def returned() -> pd.DataFrame:
    """What Feast answers: a column order of its own, nulls for a user without a past."""
    return pd.DataFrame(
        {
            "event_timestamp": [pd.Timestamp("2024-01-08", tz="UTC")] * 3,
            "positives": [[True, False], None, [True]],
            "times": [[START, START + 1], None, [START]],
            "user_id": ["b", "c", "a"],
            "item_ids": [np.array(["x", "y"], dtype=object), None, ["z"]],
            "engagements": [np.array([1.0, 0.0], dtype=np.float32), None, [0.5]],
        }
    )


def test_what_feast_returned_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "histories.parquet"
    measures = check_histories(returned(), out)
    assert measures == {"users": 2, "users_without_past": 1, "events": 3, "positives": 2}
    table = pq.read_table(out)
    assert table.schema.equals(schema.HISTORIES)
    assert table["user_id"].to_pylist() == ["a", "b"] and table["item_ids"].to_pylist() == [["z"], ["x", "y"]]
    newest = [int(moment.timestamp() * 1000) for moment in table["event_timestamp"].to_pylist()]
    assert newest == [START, START + 1]


def test_nobody_has_a_past(tmp_path: Path) -> None:
    frame = returned().iloc[[1]]
    assert check_histories(frame, tmp_path / "histories.parquet")["users"] == 0
    histories = Histories.load(tmp_path / "histories.parquet")
    assert histories.users == [] and histories.offsets.tolist() == [0] and histories.of("a").item_ids == []


@pytest.mark.parametrize(
    ("column", "row", "value", "expected"),
    [
        ("user_id", 2, None, "every user once"),
        ("user_id", 2, "b", "every user once"),
        ("user_id", 3, 7, "a string"),
        ("user_id", 3, "", "a string"),
        ("times", 1, [START], "as many values as item ids"),
        ("positives", 3, None, "as many values as item ids"),
        ("item_ids", 1, ["x", None], "item ids"),
        ("times", 1, [START + 1, START], "oldest first"),
        ("times", 1, [0.5, 1.5], "oldest first"),
        ("engagements", 1, [0.5, 1.5], "numbers from 0 to 1"),
        ("engagements", 3, [float("nan")], "numbers from 0 to 1"),
        ("positives", 1, [1, 0], "true or false"),
    ],
)
def test_bad_histories_are_refused(tmp_path: Path, column: str, row: int, value: object, expected: str) -> None:
    frame = returned()
    frame[column] = frame[column].astype(object)
    frame.at[row - 1, column] = value
    with pytest.raises(DataError) as caught:
        check_histories(frame, tmp_path / "histories.parquet")
    assert (caught.value.column, caught.value.row) == (column, row)
    assert expected in caught.value.expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("column", ["user_id", "item_ids", "times", "engagements", "positives"])
def test_missing_column_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError) as caught:
        check_histories(returned().drop(columns=column), tmp_path / "histories.parquet")
    assert caught.value.column == column and "missing" in caught.value.problem


def test_an_event_at_the_cut_is_refused(three: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["b", "a"],
            "item_ids": [["d3"], ["d0", "d7"]],
            "times": [[START + 3 * DAY], [START, START + 7 * DAY]],
            "engagements": [[1.0], [1.0, 1.0]],
            "positives": [[True], [True, True]],
        }
    )
    check_histories(frame, tmp_path / "histories.parquet")
    with pytest.raises(DataError, match=r"row 2: .*events before the user's cut alone"):
        check_histories(frame, tmp_path / "histories.parquet", three)
    stranger = frame.iloc[[0]].assign(user_id="stranger")
    with pytest.raises(DataError, match="row 1"):
        check_histories(stranger, tmp_path / "histories.parquet", three)
