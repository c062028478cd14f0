"""Small data sets of users by the days of their events."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import load_interactions

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
