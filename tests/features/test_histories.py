"""Histories as columns: what learning steps read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from newfound.datasets import Dataset
from newfound.errors import DataError
from newfound.features.histories import Histories

DAY = 86_400_000
START = int(pd.Timestamp("2024-01-01", tz="UTC").timestamp() * 1000)


def test_past_as_columns(three: Path, tmp_path: Path, fetch: Callable[[Path, Path], Path]) -> None:
    histories = Histories.load(fetch(three, tmp_path / "histories.parquet"))
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
    histories = Histories.load(movielens_histories)
    assert histories.users == sorted(past["user_id"].unique())
    assert histories.item_ids.tolist() == past["item_id"].tolist()
    assert np.array_equal(histories.times, past["timestamp"].astype("int64") // 1000)
    assert np.array_equal(histories.engagements, past["engagement"])
    assert np.array_equal(histories.positives, past["positive"])


def test_broken_file(tmp_path: Path, three: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Histories.load(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        Histories.load(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        Histories.load(three / "users.parquet")
