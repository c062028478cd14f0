"""A refresh without its pipeline: parts out, table anew, judged, published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from newfound.config import DataConfig, RefreshConfig, SplitConfig, TableConfig, TransitionsConfig
from newfound.datasets import load_interactions
from newfound.errors import GateError
from newfound.refresh import judge, open_parts, publish_refreshed, refresh_table
from newfound.release import store as release
from newfound.table import TransitionTable
from newfound.transitions.mine import mine_transitions
from tests.serving.synthetic import World, publish_world

WORLD = World(clusters=12, items=12)


@dataclasses.dataclass
class Case:
    root: str
    release: str
    parts: dict[str, Path]
    dataset: Path
    transitions: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, fetch: Callable[[Path, Path], Path]) -> Case:
    """A made-up release, and people whose interests follow each other: cluster n, then n + 1, then n + 2, ..."""
    folder = tmp_path_factory.mktemp("refresh")
    root = str(folder / "releases")
    made = publish_world(WORLD, folder / "releases", folder / "world")
    parts = {name: folder / "opened" / name for name in ("clusters", "planner", "table", "ranker")}
    assert open_parts(root, made.id, parts, folder / "cache") == {"release": made.id, "has_planner": 0}
    rows = [
        (f"u{user:03d}", f"i{(user + step) % 12}.{user % 12}", 1_700_000_000 + 86_400 * step + user, 1.0)
        for user in range(120)
        for step in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "engagement"])
    frame.to_parquet(folder / "events.parquet")
    data = DataConfig(loader="files", interactions=str(folder / "events.parquet"), min_user_events=1)
    load_interactions(data, SplitConfig(cut="global", future=0.3), 7, folder / "dataset")
    past = fetch(folder / "dataset", folder / "histories.parquet")
    mining = TransitionsConfig(learn_from="all")
    mine_transitions(past, folder / "dataset", parts["clusters"], mining, 7, folder / "transitions")
    return Case(root, made.id, parts, folder / "dataset", folder / "transitions")


def _refreshed(case: Case, out: Path, recent: float = 1.0) -> Path:
    config = TableConfig()
    refresh_table(case.parts["planner"], case.parts["clusters"], case.transitions, config, recent, out)
    return out


def test_a_better_table_passes_and_is_published_with_everything_else_as_it_was(case: Case, tmp_path: Path) -> None:
    table = _refreshed(case, tmp_path / "table")
    measures, gates = judge(
        case.parts["table"], table, case.dataset, case.parts["clusters"], 2, RefreshConfig(min_successor_jaccard=0)
    )
    assert measures["events"] > 50
    assert measures["after.novel_recall@1"] > 2 * measures["chance.novel_recall@1"]
    assert measures["after.novel_recall@1"] > measures["before.novel_recall@1"]
    assert all(gate["passed"] for gate in gates.values())
    old = release.load(case.root, case.release).manifest
    new = publish_refreshed(case.root, case.release, table, measures, gates, tmp_path, promote=False)
    assert release.current(case.root) == case.release, "a canary does not serve everybody"
    changed = {name for name in new.files if new.files[name] != old.files.get(name)}
    assert changed and all(name.startswith("table/") for name in changed)
    assert (new.lineage["parents"], new.lineage["kind"]) == ([case.release], "refresh")
    assert new.measures["refresh.events"] == measures["events"]
    assert new.gates["refresh.recall_ratio"]["passed"]
    release.verify(case.root, new.id)


def test_gates_stop_by_name(case: Case, tmp_path: Path) -> None:
    table = _refreshed(case, tmp_path / "table")
    paths = (case.parts["table"], table, case.dataset, case.parts["clusters"], 2)
    with pytest.raises(GateError, match="recall_ratio"):
        judge(*paths, RefreshConfig(min_recall_ratio=1000))
    with pytest.raises(GateError, match="successor_jaccard.*spread"):
        judge(*paths, RefreshConfig(min_successor_jaccard=1, max_head_share=0))


def test_recent_transitions_alone_count(case: Case, tmp_path: Path) -> None:
    whole = TransitionTable.load(_refreshed(case, tmp_path / "whole"), _clusters(case))
    lately = TransitionTable.load(_refreshed(case, tmp_path / "lately", recent=0.1), _clusters(case))
    assert set(whole.contexts()) == set(lately.contexts())
    assert any(
        [s.cluster for s in whole.successors(c) or []] != [s.cluster for s in lately.successors(c) or []]
        for c in whole.contexts()
    )
    assert not list(tmp_path.glob(".*")), "nothing is left behind"
    assert pq.read_table(case.transitions / "balanced.parquet").num_rows > 0


def _clusters(case: Case):  # type: ignore[no-untyped-def]
    from newfound.clusters import Clusters

    return Clusters.load(case.parts["clusters"])
