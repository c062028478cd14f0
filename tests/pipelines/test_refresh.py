"""What a refresh works out before it starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from newfound.config import RefreshConfig
from newfound.errors import ConfigError
from pipelines.refresh import latest_shares


@pytest.fixture
def interactions(tmp_path: Path) -> Path:
    """Ten days of one event each."""
    newest = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [("u", f"i{day}", newest - timedelta(days=day), 1.0) for day in range(10)]
    path = tmp_path / "interactions.parquet"
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "engagement"]).to_parquet(path)
    return path


def test_shares_are_of_the_latest_days(interactions: Path) -> None:
    bounds = RefreshConfig(judged_days=3, recent_days=5)
    assert latest_shares(str(interactions), bounds) == latest_shares(f"file://{interactions}", bounds) == (0.3, 0.5)
    with pytest.raises(ConfigError, match=r"absent\.parquet: cannot be read"):
        latest_shares("absent.parquet", bounds)
    with pytest.raises(ConfigError, match="nothing is older"):
        latest_shares(str(interactions), RefreshConfig(judged_days=30))
