"""The clusters artifact: look-ups, round trip, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.errors import DataError

# a: (a1: x (p, q), y (r)); b: (b1: z (s))
TREE = [
    ("a", None, 1, "Space", 3, 0.75),
    ("a1", "a", 2, "Star ships", 3, 0.75),
    ("x", "a1", 3, "Old star ships", 2, 0.5),
    ("y", "a1", 3, "New star ships", 1, 0.25),
    ("b", None, 1, "Love", 1, 0.25),
    ("b1", "b", 2, "Wedding", 1, 0.25),
    ("z", "b1", 3, "Wedding", 1, 0.25),
]
PATHS = [("p", "a a1 x"), ("q", "a a1 x"), ("r", "a a1 y"), ("s", "b b1 z")]


def make(tree=TREE, paths=PATHS, info=None) -> Clusters:
    columns = list(zip(*tree, strict=True))
    table = pa.table(dict(zip(schema.TREE.names, columns, strict=True)), schema=schema.TREE)
    items = pa.table(
        {schema.ITEM: [item for item, _ in paths], schema.PATH: [path.split() for _, path in paths]},
        schema=schema.ITEM_PATHS,
    )
    layout = pa.table({"node": ["a1", "b1"], "x": [-1.0, 1.0], "y": [0.0, 0.0]}, schema=schema.LAYOUT)
    vectors = {
        "items": np.array([[0, 0], [0, 1], [0, 4], [9, 9]], dtype=np.float32),
        "nodes": np.array([[0, 2], [0, 2], [0, 0.5], [0, 4], [9, 9], [9, 9], [9, 9]], dtype=np.float32),
    }
    return Clusters(table, items, info or {"interface_level": 2}, vectors, layout)


def test_look_ups():
    clusters = make()
    assert clusters.interface == ["a1", "b1"]
    assert clusters.descriptions == ["Star ships", "Wedding"]
    assert clusters.index == {"a1": 0, "b1": 1}
    assert clusters.cluster_of == {"p": "a1", "q": "a1", "r": "a1", "s": "b1"}
    assert clusters.leaf_of["r"] == "y"
    assert clusters.path_of("q") == ("a", "a1", "x")
    assert clusters.slice_of("a1") == (0, 3)
    assert clusters.slice_of("y") == (2, 3)
    assert clusters.items_under("b") == ["s"]
    assert clusters.parent_of("x") == "a1"
    assert clusters.parent_of("a") is None
    assert clusters.children_of("a1") == ["x", "y"]
    assert clusters.children_of(None) == ["a", "b"]
    assert clusters.children_of("z") == []
    assert clusters.ancestor_of("x", 1) == "a"
    assert clusters.at_level(3) == ["x", "y", "z"]
    assert clusters.traffic.tolist() == [0.75, 0.25]
    with pytest.raises(KeyError):
        clusters.path_of("unknown")
    with pytest.raises(ValueError, match="level 2"):
        clusters.ancestor_of("a1", 3)


def test_assign_goes_down_the_tree():
    new = np.array([[0, 3.5], [0.2, 0.1], [8, 8]], dtype=np.float32)
    assert make().assign(new) == ["y", "x", "z"]


def test_round_trip(tmp_path: Path):
    made = make()
    made.save(tmp_path / "clusters")
    loaded = Clusters.load(tmp_path / "clusters")
    assert loaded.digest == made.digest
    assert loaded.tree.equals(made.tree)
    assert loaded.items.equals(made.items)
    assert loaded.layout.equals(made.layout)
    assert np.array_equal(loaded.item_vectors, made.item_vectors)
    assert np.array_equal(loaded.node_vectors, made.node_vectors)
    made.save(tmp_path / "clusters")  # over an older one
    assert sorted(file.name for file in (tmp_path / "clusters").iterdir()) == [
        "centroids.safetensors",
        "clusters.json",
        "items.parquet",
        "layout.parquet",
        "tree.parquet",
    ]


def test_digest_follows_meaning_and_not_traffic():
    other_traffic = [(*row[:5], 0.5) for row in TREE]
    assert make(other_traffic).digest == make().digest
    other_text = [*TREE[:-1], ("z", "b1", 3, "Other", 1, 0.25)]
    assert make(other_text).digest != make().digest
    moved = [*PATHS[:1], ("q", "a a1 y"), *PATHS[2:]]
    sizes = [(*row[:4], {"x": 1, "y": 2}.get(row[0], row[4]), row[5]) for row in TREE]
    assert make(sizes, moved).digest != make().digest


@pytest.mark.parametrize(
    ("tree", "paths", "says"),
    [
        ([TREE[1], TREE[0], *TREE[2:]], PATHS, "does not follow its parent"),
        ([*TREE, ("x", "b1", 3, "New", 1, 0.2)], PATHS, "names a node twice"),
        ([*TREE[:3], ("y", "a1", 3, "Old star ships", 1, 0.2), *TREE[4:]], PATHS, "level 3 has an empty or repeated"),
        (TREE, [PATHS[0], PATHS[2], PATHS[1], PATHS[3]], "does not follow the tree"),
        (TREE, [*PATHS[:3], ("p", "b b1 z")], "names an item twice"),
        (TREE, [*PATHS[:3], ("s", "b b1")], "stops above the leaves"),
        (TREE, [*PATHS[:3], ("s", "b b1 w")], "that the tree lacks"),
        (TREE, [*PATHS[:3], ("s", "b a1 z")], "does not follow the tree"),
        (TREE, [*PATHS, ("t", "b b1 z")], "a size differs"),
    ],
)
def test_contradictions_are_refused(tree, paths, says):
    with pytest.raises(DataError, match=says):
        make(tree, paths)


def test_broken_folders_are_refused(tmp_path: Path):
    folder = tmp_path / "clusters"
    with pytest.raises(DataError, match="missing"):
        Clusters.load(folder)
    make().save(folder)
    pq.write_table(make([*TREE[:-1], ("z", "b1", 3, "Other", 1, 0.25)]).tree, folder / "tree.parquet")
    with pytest.raises(DataError, match="digest does not match"):
        Clusters.load(folder)
    make().save(folder)
    (folder / "items.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read"):
        Clusters.load(folder)
    make().save(folder)
    record = json.loads((folder / "clusters.json").read_text())
    (folder / "clusters.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        Clusters.load(folder)
    make().save(folder)
    (folder / "centroids.safetensors").write_bytes(b"short")
    with pytest.raises(DataError, match="centroids"):
        _ = Clusters.load(folder).item_vectors
