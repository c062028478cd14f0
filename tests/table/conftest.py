"""A table that the tiny planner built."""

from __future__ import annotations

from pathlib import Path

import pytest

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.table import build_table


@pytest.fixture(scope="session")
def table_config() -> TableConfig:
    """Two shards."""
    return TableConfig(shards=2, precision="float32", second_build=8)


@pytest.fixture(scope="session")
def table(trained_planner: tuple[Path, dict[str, object]], planner_world: Path, table_config: TableConfig) -> Path:
    """The table's folder."""
    folders = (trained_planner[0], planner_world / "clusters", planner_world / "transitions")
    build_table(*folders, table_config, planner_world / "table")
    return planner_world / "table"


@pytest.fixture
def clusters(planner_world: Path) -> Clusters:
    """Those that the table is for."""
    return Clusters.load(planner_world / "clusters")
