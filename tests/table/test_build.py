"""The table: complete, resumable, and it tells how it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.planner.alignment import Alignment
from newfound.planner.planner import Planner
from newfound.table import TransitionTable, build_table, compare_tables

Trained = tuple[Path, dict[str, object]]


def test_it_answers_every_ordered_pair_with_the_exact_best(
    table: Path, trained_planner: Trained, planner_world: Path, clusters: Clusters
) -> None:
    loaded = TransitionTable.load(table, clusters)
    assert len(loaded) == 8 * 7
    planner = Planner.load(trained_planner[0], clusters, precision="float32")
    for context in (("c0", "c3"), ("c7", "c2")):
        found = loaded.successors(context)
        assert found is not None and len(found) == 4 and {s.source for s in found} == {"planner"}
        everything = planner.scores([context], exhaustive=True)[0]
        everything[[clusters.index[c] for c in context]] = -np.inf
        order = np.argsort(-everything, kind="stable")[:4]
        assert [s.cluster for s in found] == [clusters.interface[i] for i in order]
        np.testing.assert_allclose([s.score for s in found], everything[order], atol=1e-3)
    for context in loaded.contexts():
        assert not {s.cluster for s in loaded.successors(context) or ()} & set(context)
    assert loaded.successors(("c0", "c0")) is None and loaded.successors(("c0", "nowhere")) is None


def test_rows_are_sorted_and_the_record_tells_how_they_came(table: Path) -> None:
    rows = pq.read_table(table / "table.parquet")
    assert rows.schema.equals(schema.TABLE)
    keys = list(zip(map(tuple, rows[schema.CONTEXT].to_pylist()), rows[schema.RANK].to_pylist(), strict=True))
    assert keys == sorted(keys)
    record = json.loads((table / "table.json").read_text())
    assert record["second_build"] == {
        "contexts": 16,
        "top1_agreement": 1.0,
        "largest_difference": pytest.approx(0, abs=1e-3),
    }
    assert record["engine"]["engine"] == "lean" and record["measures"]["contexts"] == 56


def test_inexact_ranks_follow_the_exact_ones_and_never_score_above(
    trained_planner: Trained,
    planner_world: Path,
    clusters: Clusters,
    tmp_path: Path,
    table: Path,
    table_config: TableConfig,
) -> None:
    config = table_config.model_copy(update={"exact": 1, "top_k": 6})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    full, part = TransitionTable.load(table, clusters), TransitionTable.load(tmp_path / "t", clusters)
    for context in full.contexts():
        answers = part.successors(context) or []
        assert len(answers) == 6 and answers[0].cluster == (full.successors(context) or [])[0].cluster
        scores = [answer.score for answer in answers]
        assert scores == sorted(scores, reverse=True)


def test_recent_successors_enter_the_prompt_of_a_refresh(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path, table_config: TableConfig
) -> None:
    config = table_config.model_copy(update={"recent": 0.5})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    assert json.loads((tmp_path / "t" / "table.json").read_text())["recent_successors"] > 0
    diff = compare_tables(table, tmp_path / "t")
    assert diff.contexts == 56 and 0 <= diff.successor_jaccard <= 1


def test_the_second_model_changes_an_order_and_nothing_else(
    trained_planner: Trained,
    planner_world: Path,
    tmp_path: Path,
    table: Path,
    clusters: Clusters,
    table_config: TableConfig,
) -> None:
    shutil.copytree(trained_planner[0], tmp_path / "planner")
    model = Alignment.load(trained_planner[0], clusters)
    model.level = np.linspace(-1, 1, 8).astype(np.float32)
    model.weight = 50.0  # as strong as it can be
    model.save(tmp_path / "planner")
    config = table_config.model_copy(update={"align": True})
    build_table(tmp_path / "planner", planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    plain, aligned = TransitionTable.load(table, clusters), TransitionTable.load(tmp_path / "t", clusters)
    changed = 0
    for context in plain.contexts():
        before, after = plain.successors(context) or [], aligned.successors(context) or []
        assert len({s.cluster for s in after}) == 4 and not {s.cluster for s in after} & set(context)
        np.testing.assert_allclose([s.score for s in after], [s.score for s in before], atol=1e-4)
        changed += after[0].cluster != before[0].cluster
    assert changed > 10
