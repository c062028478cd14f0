"""Ids alone: nothing to read for a language model, so the planner is left out and the table counts pairs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from newfound.clusters import Clusters, build_clusters
from newfound.config import (
    ClustersConfig,
    DataConfig,
    PlannerConfig,
    SplitConfig,
    TableConfig,
    TransitionsConfig,
)
from newfound.datasets import load_interactions
from newfound.planner.training.finetune import finetune_planner
from newfound.table import TransitionTable, build_table
from newfound.transitions.mine import mine_transitions


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, fetch: Callable[[Path, Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("ids-alone")
    rng = np.random.default_rng(3)
    lines = ["user_id,item_id,timestamp"]
    for user in range(80):
        for at, item in enumerate(rng.permutation(60)[:30]):
            lines.append(f"u{user},{item},{at + 1}")
    (folder / "mine.csv").write_text("\n".join(lines))
    data = DataConfig(loader="files", interactions=str(folder / "mine.csv"))
    load_interactions(data, SplitConfig(), 7, folder / "dataset")
    fetch(folder / "dataset", folder / "histories.parquet")
    config = ClustersConfig(interface_size=10, coarse_sizes=(3,), leaf_items=4)
    build_clusters(folder / "dataset", folder / "histories.parquet", config, 7, folder / "clusters")
    mine_transitions(
        folder / "histories.parquet",
        folder / "dataset",
        folder / "clusters",
        TransitionsConfig(),
        7,
        folder / "transitions",
    )
    return folder


def test_the_planner_says_that_it_needs_text_and_the_table_counts(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    clusters = Clusters.load(work / "clusters")
    assert not clusters.has_words
    with caplog.at_level(logging.WARNING):
        measures = finetune_planner(work / "transitions", work / "clusters", PlannerConfig(), 7, work / "planner")
        build_table(work / "planner", work / "clusters", work / "transitions", TableConfig(), work / "table")
    assert measures["contexts"] == 0
    assert "needs text or categories" in caplog.text and "pair frequencies" in caplog.text
    assert [file.name for file in (work / "planner").iterdir()] == ["training.json"]
    assert "neither text" in json.loads((work / "planner" / "training.json").read_text())["left_out"]
    table = TransitionTable.load(work / "table", clusters)
    assert len(table) == 10 * 9
    for context in table.contexts():
        answers = table.successors(context) or []
        assert answers and {answer.source for answer in answers} == {"frequency"}
        assert not {answer.cluster for answer in answers} & set(context)
