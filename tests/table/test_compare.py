"""What changed between two tables, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.table import compare_tables
from newfound.table.answers import rows_of
from newfound.table.build import write_table
from newfound.table.compare import drift, spread_of

Trained = tuple[Path, dict[str, object]]


def test_comparison_by_hand(planner_world: Path, tmp_path: Path, clusters: Clusters) -> None:
    def write(name: str, answers: list[list[int]]) -> Path:
        contexts = [("c0", "c1"), ("c1", "c0"), ("c2", "c0")]
        best = np.array(answers, dtype=np.int32)
        rows = rows_of(
            contexts, best, -np.arange(best.size, dtype=np.float32).reshape(best.shape), clusters.interface, "planner"
        )
        write_table(rows, {"clusters_digest": clusters.digest}, clusters, tmp_path / name)
        return tmp_path / name

    old, new = write("old", [[2, 3], [2, 3], [3, 4]]), write("new", [[2, 3], [4, 3], [3, 5]])
    diff = compare_tables(old, new)
    assert diff.pairs_changed == pytest.approx(1 / 3)
    assert diff.changed == [(("c1", "c0"), "c2", "c4")]
    assert diff.successor_jaccard == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert (diff.labels_gained, diff.labels_lost) == (["c4"], [])
    assert diff.measures()["labels_gained"] == 1
    assert [step.pairs_changed for step in drift([old, new, new])] == [pytest.approx(1 / 3), 0.0]
    assert spread_of([1, 1, 1, 1])["gini"] == 0.0
