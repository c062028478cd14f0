"""What a refresh works out before it starts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from newfound.config import RefreshConfig, load_config
from newfound.errors import ConfigError
from pipelines import refresh
from pipelines.refresh import latest_shares
from pipelines.settings import settings_of
from pipelines.training import STEPS


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


def test_what_is_recent_and_must_hold_is_configured(
    interactions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh.published, "current", lambda root: "a-release")
    file = tmp_path / "mine.yaml"
    file.write_text("refresh: {judged_days: 3, recent_days: 5, min_recall_ratio: 0.9}\n")
    config = load_config(file, {"data.interactions": str(interactions)})
    given = refresh.arguments(refresh.of_events(config), "releases")
    assert given["recent"] == 0.5
    assert json.loads(str(given["data"]))["config"]["split"]["future"] == 0.3
    assert json.loads(str(given["judging"]))["config"]["refresh"]["min_recall_ratio"] == 0.9
    # Training is none of its business: nothing there is made anew when it changes.
    other = config.model_copy(update={"refresh": RefreshConfig()})
    assert settings_of(STEPS, config) == settings_of(STEPS, other)
    file.write_text("refresh: {judged_days: 0}\n")
    with pytest.raises(ConfigError, match=r"key 'refresh\.judged_days'"):
        load_config(file)
