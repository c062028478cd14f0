"""A shard goes on where it was killed, and only finished ones of the same inputs make a table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from newfound.config import TableConfig
from newfound.errors import ConfigError, DataError, VocabularyError
from newfound.table import build_shard, build_table, merge, shards
from newfound.table.artifact import CONTEXTS_FILE, FILE, RECORD
from newfound.types import Array

ROOT = Path(__file__).parents[2]
Trained = tuple[Path, dict[str, object]]


def test_a_killed_build_goes_on_where_it_stopped(
    trained_planner: Trained,
    planner_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table_config: TableConfig,
) -> None:
    monkeypatch.setattr(shards, "BLOCK", 8)
    whole, calls = shards._answer, 0

    def dies(*args: object) -> Array:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole(*args)  # type: ignore[arg-type]

    inputs = (trained_planner[0], planner_world / "clusters", planner_world / "transitions", table_config)
    monkeypatch.setattr(shards, "_answer", dies)
    with pytest.raises(KeyboardInterrupt):
        build_table(*inputs, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    build_table(*inputs, tmp_path / "t")
    # 28 contexts a shard are 4 blocks; two were there.
    assert calls == 3 + 2 + 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]
    monkeypatch.setattr(shards, "_answer", whole)
    build_table(*inputs, tmp_path / "at once")
    np.testing.assert_array_equal(np.load(tmp_path / "t" / FILE), np.load(tmp_path / "at once" / FILE))


def test_shards_merge_in_any_order_and_only_if_complete(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path, table_config: TableConfig
) -> None:
    places = (planner_world / "clusters", planner_world / "transitions")
    shards = [tmp_path / str(shard) for shard in range(2)]
    for shard, folder in enumerate(shards):
        build_shard(trained_planner[0], *places, table_config, shard, folder)
    merge(shards[::-1], trained_planner[0], *places, table_config, tmp_path / "merged")
    np.testing.assert_array_equal(np.load(tmp_path / "merged" / FILE), np.load(table / FILE))
    with pytest.raises(DataError, match="shard 1 is missing"):
        merge(shards[:1], trained_planner[0], *places, table_config, tmp_path / "bad")
    with pytest.raises(DataError, match="twice"):
        merge([shards[0], shards[0]], trained_planner[0], *places, table_config, tmp_path / "bad")
    other = table_config.model_copy(update={"minutes": 3.0})
    with pytest.raises(VocabularyError, match="other inputs"):
        merge(shards, trained_planner[0], *places, other, tmp_path / "bad")
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        build_shard(trained_planner[0], *places, table_config, 2, tmp_path / "2")
    assert not (tmp_path / "bad").exists()


def test_a_killed_worker_loses_its_unfinished_block_and_another_takes_its_shard(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path, table_config: TableConfig
) -> None:
    """Real processes: one builds shards 2 and 0, another 3 and then 1, of which it leaves half to the first."""
    config = table_config.model_copy(update={"shards": 4})
    folders = [tmp_path / str(shard) for shard in range(4)]
    inputs = (trained_planner[0], planner_world / "clusters", planner_world / "transitions")

    def worker(taken: list[int], dies_after: int | None = None) -> subprocess.CompletedProcess[str]:
        order = dict(zip(("planner", "clusters", "transitions"), map(str, inputs), strict=True))
        shards = [(shard, str(folders[shard])) for shard in taken]
        order |= {"config": config.model_dump(mode="json"), "shards": shards, "block": 4, "dies_after": dies_after}
        command = [sys.executable, "-m", "tests.table.shard_worker", json.dumps(order)]
        return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=300)

    # 14 contexts a shard are four blocks.
    assert worker([3, 1], dies_after=6).returncode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for folder in (folders[3], folders[1]) for file in folder.glob("*.npy")}
    with pytest.raises(DataError, match="not a finished shard"):
        merge(folders, *inputs, config, tmp_path / "early")
    done = worker([2, 0, 1, 3])
    assert done.returncode == 0 and int(done.stdout) == 4 + 4 + 2, done.stderr
    assert all(file.stat().st_mtime_ns == at for file, at in kept.items() if file.parent == folders[3])
    merge(folders, *inputs, config, tmp_path / "merged")
    first = {file.name: file.read_bytes() for file in (tmp_path / "merged").iterdir()}
    np.testing.assert_array_equal(np.load(tmp_path / "merged" / FILE), np.load(table / FILE))
    merge(folders[::-1], *inputs, config, tmp_path / "merged")  # again, over the first: not a byte differs
    assert {file.name: file.read_bytes() for file in (tmp_path / "merged").iterdir()} == first
    assert sorted(first) == sorted((CONTEXTS_FILE, FILE, RECORD))
