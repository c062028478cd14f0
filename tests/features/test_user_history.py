"""Histories: rows for Feast, what comes back from it, and the columns that learning reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.errors import DataError
from newfound.features.user_history import check_histories, entity_rows, read_histories, write_rows

DAY = 86_400_000
START = int(pd.Timestamp("2024-01-01", tz="UTC").timestamp() * 1000)


def make(tmp_path: Path, events: dict[str, list[int]]) -> Path:
    """A data set with a global cut from users' event days; item ids are the days."""
    rows = [(user, f"d{day}", START // 1000 + day * 86_400) for user, days in events.items() for day in days]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(tmp_path / "events.csv", index=False)
    config = DataConfig(loader="files", interactions=str(tmp_path / "events.csv"), min_user_events=1)
    load_interactions(config, SplitConfig(cut="global", future=0.3), 1, tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """The cut is day 7: user a lies across it, b before it, c after it."""
    return make(tmp_path, {"a": [0, 1, 2, 7, 8], "b": [3, 4, 5, 6], "c": [9]})


def test_a_row_as_of_the_cut_and_one_as_of_the_end(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    assert write_rows(three, 1000, out) == {"rows": 4, "users": 3, "cropped_users": 0}
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
    assert write_rows(three, 2, out)["cropped_users"] == 2
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


def test_past_as_columns(three: Path, tmp_path: Path, fetch: Callable[[Path, Path], Path]) -> None:
    histories = read_histories(fetch(three, tmp_path / "histories.parquet"))
    assert histories.users == ["a", "b"] and len(histories) == 2
    assert histories.offsets.tolist() == [0, 3, 7]
    assert histories.item_ids.tolist() == ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]
    past = histories.of("b")
    assert past.item_ids == ["d3", "d4", "d5", "d6"]
    assert past.times.tolist() == [START + day * DAY for day in (3, 4, 5, 6)]
    assert past.engagements.tolist() == [1.0] * 4 and past.positives.tolist() == [True] * 4
    assert "a" in histories and "c" not in histories
    assert histories.of("c").item_ids == [] and len(histories.of("c").times) == 0
    assert [(user, past.item_ids) for user, past in histories][0] == ("a", ["d0", "d1", "d2"])


def test_slice_matches_its_interactions(movielens: Path, movielens_histories: Path) -> None:
    data = Dataset(movielens)
    events = data.frame("interactions").merge(data.frame("users"), on="user_id")
    past = events[events["timestamp"] < events["cut"]]
    histories = read_histories(movielens_histories)
    assert histories.users == sorted(past["user_id"].unique())
    assert histories.item_ids.tolist() == past["item_id"].tolist()
    assert np.array_equal(histories.times, past["timestamp"].astype("int64") // 1000)
    assert np.array_equal(histories.engagements, past["engagement"])
    assert np.array_equal(histories.positives, past["positive"])


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
    histories = read_histories(tmp_path / "histories.parquet")
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


def test_broken_file(tmp_path: Path, three: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_histories(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_histories(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_histories(three / "users.parquet")
