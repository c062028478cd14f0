"""The data set on disk, as later steps see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.datasets import Dataset
from newfound.errors import DataError


def test_tables_keep_their_contract(movielens: Path) -> None:
    for name, contract in (("interactions", schema.INTERACTIONS), ("items", schema.ITEMS), ("users", schema.USERS)):
        table = pq.read_table(movielens / f"{name}.parquet")
        assert table.schema.equals(contract)
        assert all(table[field.name].null_count == 0 for field in contract if not field.nullable)


def test_tables_are_sorted(movielens: Path) -> None:
    data = Dataset(movielens)
    events = data.frame("interactions")
    assert events.sort_values(["user_id", "position"], kind="stable").index.is_monotonic_increasing
    assert (events.groupby("user_id")["timestamp"].diff().dropna().dt.total_seconds() >= 0).all()
    assert (events.groupby("user_id").cumcount() == events["position"]).all()
    assert data.frame("items")["item_id"].is_monotonic_increasing
    assert data.frame("users")["user_id"].is_monotonic_increasing


def test_ibis_tables_are_the_files(movielens: Path) -> None:
    data = Dataset(movielens)
    joined = data.interactions.inner_join(data.users, "user_id").inner_join(data.items, "item_id")
    counts = data.info["counts"]
    assert joined.count().execute() == counts["interactions"] == len(data.frame("interactions"))
    assert data.users.count().execute() == counts["users"]
    assert data.interactions.filter(lambda table: table["positive"]).count().execute() == counts["positives"]


def test_groups_and_counts(tiny: Path) -> None:
    data = Dataset(tiny)
    assert data.frame("users")["group"].value_counts().to_dict() == {"train": 5, "test": 2, "validation": 1}
    counts = data.info["counts"]
    assert (counts["past"], counts["future"], counts["items"]) == (64, 16, 12)
    assert [counts[f"{group}_users"] for group in schema.GROUPS] == [5, 1, 2]


def test_record_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json"):
        Dataset(tmp_path)


def test_table_is_missing_or_of_another_kind(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    shutil.copy(tiny / "items.parquet", tmp_path / "copy" / "users.parquet")
    with pytest.raises(DataError, match=r"users\.parquet"):
        Dataset(tmp_path / "copy")
    (tmp_path / "copy" / "users.parquet").unlink()
    with pytest.raises(DataError, match=r"users\.parquet: cannot be read"):
        Dataset(tmp_path / "copy")


def test_record_is_plain_json(movielens: Path) -> None:
    record = json.loads((movielens / "dataset.json").read_text())
    assert list(record)[:2] == ["name", "fingerprint"] and len(record["fingerprint"]) == 64
    assert "/" not in json.dumps(record["sources"]), "no path of the machine"
