"""A release of any size at production's dimensions, made part by part: what `bench_capacity` serves.

    python -m tests.benchmarks.capacity_release ITEMS SHARED ROOT

800 interests under 40 branches, a full table of their ordered pairs, items around their interests' centres as
`bench_joint` places them, 64 dimensions for the ranker and for the text. SHARED keeps the table from one size to the
next. A process of its own, so that what making it took is free again when it is served.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import RankerConfig
from newfound.release.store import publish
from newfound.schema import CATALOGUE, ITEM_PATHS, LAYOUT, TREE
from newfound.table.artifact import RECORD
from newfound.types import Floats, Ints
from tests.benchmarks.bench_joint import BRANCHES, INTERESTS, catalogue
from tests.release.gates import HELD

NEIGHBOURS: Final = 16  # co-occurring items kept of each item; the ranker keeps up to 256 where events are many
SEED: Final = 7


def make(items: int, shared: Path, root: Path) -> None:
    """Writes and publishes a release of so many items."""
    work = root.with_name(f"{root.name}.parts")
    vectors, bounds = catalogue(items, SEED)
    clusters = write_clusters(bounds, work / "clusters")
    write_ranker(clusters, vectors, work / "ranker")
    del vectors
    write_items(clusters, work / "items.parquet")
    write_decision(clusters, bounds, work / "decision")
    write_table(clusters, shared, work / "table")
    names = ("clusters", "table", "ranker", "decision", "items.parquet")
    parts = {name: work / name for name in names}
    publish(parts, str(root), lineage={"items": items}, measures={}, fits={"files": "made up"}, gates=HELD)
    shutil.rmtree(work)


def write_clusters(bounds: Ints, out: Path) -> Clusters:
    """Branches, interests, a leaf or two in each; items by number."""
    items, (tree, leaves) = int(bounds[-1]), _tree(np.diff(bounds))
    ids = pa.array([f"i{at:07d}" for at in range(items)])  # in order of the tree, and of their ids within a leaf
    branch, interest, leaf, counts = (np.array(column) for column in zip(*leaves, strict=True))
    names = np.repeat(np.stack([branch, interest, leaf], axis=1), counts, axis=0).ravel()
    nodes = tree["node"]
    path = pa.ListArray.from_arrays(
        pa.array(np.arange(items + 1, dtype=np.int32) * 3), pa.array(nodes).take(pa.array(names))
    )
    rng = np.random.default_rng(SEED)
    vectors = {
        "nodes": rng.normal(size=(len(nodes), 4)).astype(np.float32),
        "items": rng.standard_normal((items, 4), dtype=np.float32),
    }
    at = rng.uniform(-1, 1, size=(INTERESTS, 2)).astype(np.float32)
    layout = pa.table({"node": _interests(), "x": at[:, 0], "y": at[:, 1]}, schema=LAYOUT)
    info = {"interface_level": 2, "source": "learned"}
    rows = pa.table(tree, schema=TREE)
    clusters = Clusters(rows, pa.table([ids, path], schema=ITEM_PATHS), info, vectors, layout)
    clusters.save(out)
    return clusters


def _interests() -> list[str]:
    return [f"c{at}" for at in range(INTERESTS)]


def _tree(sizes: Ints) -> tuple[dict[str, list[object]], list[tuple[int, int, int, int]]]:
    """Columns of schema.TREE, and of every leaf its rows from branch to leaf and its size."""
    columns: dict[str, list[object]] = {name: [] for name in TREE.names}
    leaves: list[tuple[int, int, int, int]] = []

    def add(*row: object) -> int:
        for name, value in zip(TREE.names, row, strict=True):
            columns[name].append(value)
        return len(columns["node"]) - 1

    each = INTERESTS // BRANCHES
    for branch in range(BRANCHES):
        inside = sizes[branch * each : (branch + 1) * each]
        top = add(f"p{branch}", None, 1, f"branch {branch}", int(inside.sum()), float(inside.sum() / sizes.sum()))
        for number, size in enumerate(inside.tolist(), start=branch * each):
            share = float(size / sizes.sum())
            middle = add(f"c{number}", f"p{branch}", 2, f"interest {number}", size, share)
            parts = [size - size // 2, size // 2] if size > 1 else [size]
            for at, part in enumerate(parts):
                row = add(f"l{number}.{at}", f"c{number}", 3, f"corner {number} {at}", part, share / len(parts))
                leaves.append((top, middle, row, part))
    return columns, leaves


def write_items(clusters: Clusters, out: Path) -> None:
    """Titles and popularity."""
    ids = clusters.items["item_id"].combine_chunks()
    popularity = np.random.default_rng(SEED).zipf(1.5, len(ids)).clip(max=1_000_000)
    titles = pa.array([f"Title of {name}" for name in clusters.item_order])
    twins = pa.nulls(len(ids), CATALOGUE.field("twins").type)
    columns = [ids, titles, pa.array(popularity.astype(np.int64)), twins]
    fields = [column.cast(field.type) for column, field in zip(columns, CATALOGUE, strict=True)]
    pq.write_table(pa.table(fields, schema=CATALOGUE), out)


def write_decision(clusters: Clusters, bounds: Ints, out: Path) -> None:
    """Terms of items and interests, all of them in use."""
    from newfound.recommend.cluster_terms import ClusterTerms
    from newfound.recommend.item_terms import COUNTS, ItemTerms
    from newfound.recommend.nested_logit import RECORD, Coefficients, DecisionModel
    from newfound.transitions.choice_model import ChoiceModel

    rng = np.random.default_rng(SEED + 1)
    out.mkdir(parents=True)
    items = len(clusters.item_order)
    text, _ = catalogue(items, SEED + 1, bounds)
    ItemTerms(rng.standard_normal((items, len(COUNTS)), dtype=np.float32), text).save(out)
    bias, demand = (rng.normal(size=INTERESTS).astype(np.float32) for _ in range(2))
    pull = rng.standard_normal((2, INTERESTS, INTERESTS), dtype=np.float32)
    ClusterTerms(ChoiceModel(bias, pull), demand).save(out)
    by_item = {"ranker": 0.5, "cooccurrence": 0.3, "popularity": 0.2, "approval": 0.2, "text": 1.0}
    model = DecisionModel(
        clusters_digest=clusters.digest,
        full=Coefficients(items=by_item, clusters={"planner": 1.0, "choice": 0.2, "demand": -0.2}, dissimilarity=0.8),
        without_planner=Coefficients(items=by_item, clusters={"choice": 0.4, "demand": -0.1}, dissimilarity=0.8),
    )
    (out / RECORD).write_text(model.model_dump_json(), encoding="utf-8")


def write_ranker(clusters: Clusters, vectors: Floats, out: Path) -> None:
    """Random weights: a query then lies near the last item of its history, as a trained one lies near some items."""
    import torch

    from newfound.ranker.artifact import Ranker
    from newfound.ranker.cooccurrence import CoOccurrence
    from newfound.ranker.model import Encoder

    items, config = len(clusters.item_order), RankerConfig()
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED + 2)
    neighbours = rng.integers(0, items, (items, NEIGHBOURS))
    neighbours.sort(axis=1)
    Ranker(
        encoder=Encoder(config),
        vectors=vectors,
        popularity=np.linspace(-1, 0, items, dtype=np.float32),
        cooccurrence=CoOccurrence(
            np.arange(items + 1, dtype=np.int64) * NEIGHBOURS,
            neighbours.ravel(),
            rng.random(items * NEIGHBOURS, dtype=np.float32),
            weight=0.1,
        ),
        items=clusters.item_order,
        slices={node: clusters.slice_of(node) for node in clusters.nodes},
        info={"config": config.model_dump(), "clusters_digest": clusters.digest},
    ).save(out)


def write_table(clusters: Clusters, shared: Path, out: Path) -> None:
    """Every ordered pair of interests; made once, and told of the clusters of each size."""
    from newfound.table.build import write_table as write

    record = {"source": "planner", "planner": "made up", "clusters_digest": clusters.digest}
    if not (shared / RECORD).exists():
        rng = np.random.default_rng(SEED + 3)
        pairs = np.array([(a, b) for a in range(INTERESTS) for b in range(INTERESTS) if a != b])
        rows = np.empty((len(pairs), INTERESTS), dtype=np.float16)
        for start in range(0, len(pairs), INTERESTS - 1):
            part = rng.standard_normal((INTERESTS - 1, INTERESTS), dtype=np.float32)
            at = np.arange(len(part))[:, None]
            part[at, pairs[start : start + len(part)]] = -np.inf
            part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
            rows[start : start + len(part)] = part
        write(pairs, rows, record, clusters, shared)
    out.mkdir(parents=True)
    for file in shared.iterdir():
        if file.name != RECORD:
            os.link(file, out / file.name)
    kept = json.loads((shared / RECORD).read_text(encoding="utf-8"))
    (out / RECORD).write_text(json.dumps({**kept, **record}), encoding="utf-8")


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
