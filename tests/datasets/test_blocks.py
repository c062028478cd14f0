"""Blocks of users: everybody is in one of them, in order, and what was made in blocks is what was made at once."""

from __future__ import annotations

from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound.datasets import blocks
from newfound.datasets.engine import connect
from newfound.features.user_history import write_user_history


def test_blocks_hold_about_as_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "EVENTS", 10)
    con = connect()
    sizes = con.create_table(
        "sizes", ibis.memtable(pa.table({"user_id": ["d", "a", "c", "b", "é"], "n": [1, 6, 6, 5, 30]}))
    )
    assert blocks.user_blocks(sizes, "n") == [("a", "b"), ("c", "é")]
    assert blocks.user_blocks(sizes.filter(ibis.literal(False)), "n") == [("", "")]
    parts = (blocks.of_block(sizes, block) for block in blocks.user_blocks(sizes, "n"))
    gathered = blocks.gather(con, "gathered", parts)
    assert sorted(gathered.to_pyarrow()["user_id"].to_pylist()) == ["a", "b", "c", "d", "é"]


def test_histories_in_blocks_are_those_made_at_once(
    movielens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    write_user_history(movielens, 50, whole)
    monkeypatch.setattr(blocks, "EVENTS", 1_000)
    write_user_history(movielens, 50, parts)
    assert pq.ParquetFile(parts).num_row_groups > 3
    assert pq.read_table(parts).equals(pq.read_table(whole))
