"""Pair frequencies make a table where there is no planner."""

from __future__ import annotations

from pathlib import Path

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.table import TransitionTable, frequency_table

Trained = tuple[Path, dict[str, object]]


def test_frequencies_make_a_table_without_a_planner(
    planner_world: Path, tmp_path: Path, clusters: Clusters, table_config: TableConfig
) -> None:
    frequency_table(planner_world / "transitions", planner_world / "clusters", table_config, tmp_path / "t")
    table = TransitionTable.load(tmp_path / "t", clusters)
    assert len(table) == 56
    found = table.successors(("c0", "c3")) or []
    assert {s.source for s in found} == {"frequency"} and found[0].cluster == "c4"
