"""A table is refused where it does not belong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

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
    (copy / "table.json").write_text(json.dumps({**record, "source": "oracle"}))
    with pytest.raises(DataError, match="'oracle'"):
        TransitionTable.load(copy, clusters)
    (copy / "table.json").write_text(json.dumps(record))
    contexts, rows = np.load(copy / "contexts.npy"), np.load(copy / "log_probs.npy")
    for broken, values, problem in (
        (contexts[::-1], rows, "out of order, or there twice"),
        (contexts[[0, 0, *range(2, 56)]], rows, "row 2: out of order, or there twice"),
        (contexts + np.int32(7), rows, "row 1: a cluster that there is not"),
        (contexts[1:], rows, "expected float16"),
        (contexts, rows.astype(np.float32), "float32 of shape"),
        (contexts, np.where(np.arange(56)[:, None] == 3, np.float16(-1), rows), "row 4: probabilities add up to 2.9"),
        (contexts, np.full_like(rows, np.nan), "row 1: probabilities add up to nan"),
    ):
        np.save(copy / "contexts.npy", broken)
        np.save(copy / "log_probs.npy", values)
        with pytest.raises(DataError, match=problem):
            TransitionTable.load(copy, clusters)
    np.save(copy / "contexts.npy", contexts)
    np.save(copy / "log_probs.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        TransitionTable.load(copy, clusters)
    (copy / "log_probs.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        TransitionTable.load(copy, clusters)
    (copy / "log_probs.npy").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        TransitionTable.load(copy, clusters)
