"""A shard goes on where it was killed, and only finished ones of the same inputs make a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.config import TableConfig
from newfound.errors import ConfigError, DataError, VocabularyError
from newfound.table import build_shard, build_table, merge, shards
from newfound.table.artifact import FILE
from newfound.types import Array

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
