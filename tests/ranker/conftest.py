"""Clusters made up over the small slice of MovieLens, so that the ranker is tested without the clusters' own fit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import RankerConfig
from newfound.datasets import Dataset

SMALL = RankerConfig(dim=16, blocks=1, max_length=30, epochs=3, patience=2, batch_tokens=1000)


class World(NamedTuple):
    """What `train_ranker` and `tune_ranker` read."""

    dataset: Path
    histories: Path
    clusters: Path


@pytest.fixture(scope="session")
def world(movielens: Path, movielens_histories: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three interests of two leaves each; items fall into leaves in turn, and their content tells the leaf."""
    items = sorted(Dataset(movielens).frame("items")[schema.ITEM])
    names = [("a", "ab"), ("b", "cd"), ("c", "ef")]
    leaf_of = {item: "abcdef"[at % 6] for at, item in enumerate(items)}
    ordered = sorted(items, key=lambda item: (leaf_of[item], item))
    rows: list[tuple[str, str | None, int, int]] = []
    for top, leaves in names:
        sizes = {leaf: sum(1 for item in items if leaf_of[item] == leaf) for leaf in leaves}
        rows.append((f"top-{top}", None, 1, sum(sizes.values())))
        rows += [(leaf, f"top-{top}", 2, size) for leaf, size in sizes.items()]
    tree = pa.table(
        {
            schema.NODE: [row[0] for row in rows],
            schema.PARENT: [row[1] for row in rows],
            schema.LEVEL: [row[2] for row in rows],
            schema.DESCRIPTION: [f"about {row[0]}" for row in rows],
            schema.SIZE: [row[3] for row in rows],
            schema.TRAFFIC: [row[3] / len(items) for row in rows],
        },
        schema=schema.TREE,
    )
    parent = {leaf: f"top-{top}" for top, leaves in names for leaf in leaves}
    paths = pa.table(
        {schema.ITEM: ordered, schema.PATH: [[parent[leaf_of[item]], leaf_of[item]] for item in ordered]},
        schema=schema.ITEM_PATHS,
    )
    content = np.eye(6, dtype=np.float32)[["abcdef".index(leaf_of[item]) for item in ordered]]
    vectors = {"items": np.hstack([content, content]), "nodes": np.zeros((len(rows), 12), dtype=np.float32)}
    layout = pa.table({"node": ["top-a"], "x": [0.0], "y": [0.0]}, schema=schema.LAYOUT)
    out = tmp_path_factory.mktemp("clusters")
    Clusters(tree, paths, {"interface_level": 1, "embedding": {"content_dim": 6}}, vectors, layout).save(out)
    return World(movielens, movielens_histories, out)
