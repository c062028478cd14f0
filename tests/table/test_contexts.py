"""A bounded table holds the contexts that matter."""

from __future__ import annotations

from pathlib import Path

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.table import TransitionTable, build_table
from newfound.transitions.artifact import Transitions

Trained = tuple[Path, dict[str, object]]


def test_a_partial_table_holds_the_frequent_contexts(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, clusters: Clusters, table_config: TableConfig
) -> None:
    config = table_config.model_copy(update={"contexts_at_most": 5, "shards": 1})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    counts = Transitions.load(planner_world / "transitions", clusters).context_counts()
    held = set(TransitionTable.load(tmp_path / "t", clusters).contexts())
    assert len(held) == 5
    assert min(counts[context] for context in held) >= max(n for c, n in counts.items() if c not in held)
