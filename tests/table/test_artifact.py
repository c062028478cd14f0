"""A table is refused where it does not belong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.table import TransitionTable

Trained = tuple[Path, dict[str, object]]


def test_a_table_for_other_clusters_or_broken_files_is_refused(
    table: Path, tmp_path: Path, clusters: Clusters, planner_world: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(table, copy)
    record = json.loads((copy / "table.json").read_text())
    (copy / "table.json").write_text(json.dumps({**record, "clusters_digest": "0" * 64}))
    with pytest.raises(VocabularyError, match="made for clusters 000000000000"):
        TransitionTable.load(copy, clusters)
    (copy / "table.json").write_text(json.dumps(record))
    rows = pq.read_table(copy / "table.parquet")
    pq.write_table(rows.slice(1), copy / "table.parquet")
    with pytest.raises(DataError, match="ranks"):
        TransitionTable.load(copy, clusters)
    odd = rows.set_column(4, schema.SOURCE, pa.array(["oracle"] * len(rows)))
    pq.write_table(odd, copy / "table.parquet")
    with pytest.raises(DataError, match="'oracle'"):
        TransitionTable.load(copy, clusters)
    (copy / "table.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        TransitionTable.load(copy, clusters)
