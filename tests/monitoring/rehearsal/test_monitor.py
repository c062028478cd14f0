"""A rehearsal removes no folder that it did not make."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitoring.rehearsal.monitor import rehearse
from monitoring.settings import MonitoringConfig
from newfound.errors import OutputError
from tests.serving.synthetic import World, publish_world


def test_a_persons_folder_is_left_alone(tmp_path: Path) -> None:
    publish_world(World(clusters=6, items=4), tmp_path / "releases", tmp_path / "parts")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "user_history.parquet").touch()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds files"):
        rehearse(
            tmp_path / "releases",
            tmp_path / "dataset",
            tmp_path / "features",
            mine,
            datetime.now(UTC),
            MonitoringConfig(),
        )
    assert (mine / "thesis.txt").read_text() == "years of work"
