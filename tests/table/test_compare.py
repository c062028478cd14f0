"""Two tables compared by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.table import compare_tables
from newfound.table.build import write_table
from newfound.table.compare import drift, spread_of

Trained = tuple[Path, dict[str, object]]


def test_comparison_by_hand(planner_world: Path, tmp_path: Path, clusters: Clusters) -> None:
    def write(name: str, answers: list[list[int]]) -> Path:
        contexts = np.array([[0, 1], [1, 0], [2, 0]])
        rows = np.full((3, 8), -np.inf, dtype=np.float16)
        for row, best in enumerate(answers):
            rows[row, best] = np.log([0.4, 0.3, 0.15, 0.1, 0.05])
        record = {"source": "planner", "clusters_digest": clusters.digest}
        write_table(contexts, rows, record, clusters, tmp_path / name)
        return tmp_path / name

    old, new = (
        write("old", [[2, 3, 4, 5, 6], [2, 3, 4, 5, 6], [3, 4, 5, 6, 7]]),
        write("new", [[2, 3, 4, 5, 6], [4, 3, 5, 6, 7], [3, 1, 5, 6, 4]]),
    )
    diff = compare_tables(old, new)
    assert diff.pairs_changed == pytest.approx(1 / 3)
    assert diff.changed == [(("c1", "c0"), "c2", "c4")]
    assert diff.successor_jaccard == pytest.approx((1 + 4 / 6 + 4 / 6) / 3)
    assert (diff.labels_gained, diff.labels_lost) == (["c4"], [])
    assert diff.measures()["labels_gained"] == 1
    assert [step.pairs_changed for step in drift([old, new, new])] == [pytest.approx(1 / 3), 0.0]
    assert spread_of([1, 1, 1, 1])["gini"] == 0.0
