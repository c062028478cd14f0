"""Releases without training: real artifacts with made-up contents, of any size, in seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import PolicyConfig, RankerConfig
from newfound.release.store import Manifest, publish
from newfound.schema import CATALOGUE, HISTORIES, ITEM_PATHS, TREE
from tests.release.gates import HELD


@dataclass(frozen=True)
class World:
    """How large a made-up catalogue is."""

    parents: int = 4
    clusters: int = 24
    leaves: int = 3  # a cluster
    items: int = 30  # a cluster
    dim: int = 16
    blocks: int = 1
    length: int = 200
    seed: int = 5
    policy: PolicyConfig = PolicyConfig()
    holes: int = 0  # contexts, first in order, that the table leaves out
    salt: str = ""  # anything else that makes one release differ from another


def write_release(world: World, folder: Path) -> dict[str, Path]:
    """Writes the parts of a release; returns them by name, as `publish` takes them."""
    rng = np.random.default_rng(world.seed)
    clusters = _clusters(world, rng)
    clusters.save(folder / "clusters")
    _table(world, clusters, rng, folder / "table")
    _ranker(world, clusters, rng, folder / "ranker")
    _decision(world, clusters, folder / "decision")
    order = clusters.item_order
    rows = sorted(range(len(order)), key=order.__getitem__)
    popularity = rng.zipf(1.5, len(order)).clip(max=10_000)
    items = pa.table(
        {
            "item_id": [order[row] for row in rows],
            "title": [f"Title of {order[row]}{world.salt}" for row in rows],
            "popularity": [int(popularity[row]) for row in rows],
            "twins": [None] * len(order),
        },
        schema=CATALOGUE,
    )
    pq.write_table(items, folder / "items.parquet")
    return {name: folder / name for name in ("clusters", "table", "ranker", "decision", "items.parquet")}


def publish_world(world: World, root: Path, work: Path, *, promote: bool = True) -> Manifest:
    """Makes a release and publishes it."""
    parts = write_release(world, work)
    config = {"policy": world.policy.model_dump(mode="json")}
    return publish(
        parts,
        str(root),
        lineage={"config": config, "salt": world.salt},
        measures={},
        fits={"files": "made up"},
        gates=HELD,
        promote=promote,
    )


def write_planner(folder: Path) -> Path:
    """Writes `planner` beside the clusters in a folder of parts: tiny and random, its decoding real and quick."""
    from safetensors.torch import save_file

    from newfound.planner.prompt import PromptCodec
    from tests.planner.tiny_planner import make_tokenizer, tiny_config, tiny_weights

    planner = folder / "planner"
    planner.mkdir()
    tokenizer = make_tokenizer()
    PromptCodec.extend(tokenizer, Clusters.load(folder / "clusters").descriptions).save(planner)
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.id_to_token(2)}
    (planner / "tokenizer_config.json").write_text(json.dumps(named))
    config = tiny_config(1, tokenizer.get_vocab_size())
    config |= {"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32}  # heads as vLLM knows them
    save_file(tiny_weights(config, 1), planner / "model.safetensors", metadata={"format": "pt"})
    (planner / "config.json").write_text(json.dumps(config))
    return planner


def publish_with_planner(world: World, folder: Path) -> Path:
    """Publishes a release with a planner in it.

    Returns:
        The folder of all releases, `releases` in `folder`.
    """
    parts = write_release(world, folder / "parts")
    parts["planner"] = write_planner(folder / "parts")
    publish(parts, str(folder / "releases"), lineage={}, measures={}, fits={}, gates=HELD)
    return folder / "releases"


def _clusters(world: World, rng: np.random.Generator) -> Clusters:
    per_parent = world.clusters // world.parents
    tree, paths = [], []
    traffic = rng.dirichlet(np.ones(world.clusters))
    for parent in range(world.parents):
        inside = range(parent * per_parent, (parent + 1) * per_parent)
        share = float(traffic[list(inside)].sum())
        tree.append((f"p{parent}", None, 1, f"realm {parent}", per_parent * world.items, share))
        for cluster in inside:
            tree.append((f"c{cluster}", f"p{parent}", 2, f"interest {cluster}", world.items, float(traffic[cluster])))
            for leaf in range(world.leaves):
                members = [item for item in range(world.items) if item % world.leaves == leaf]
                node = f"l{cluster}.{leaf}"
                tree.append((node, f"c{cluster}", 3, f"corner {cluster} {leaf}", len(members), 0.0))
                names = sorted(f"i{cluster}.{item}" for item in members)
                paths.extend((name, [f"p{parent}", f"c{cluster}", node]) for name in names)
    columns = dict(zip(TREE.names, zip(*tree, strict=True), strict=True))
    items = dict(zip(ITEM_PATHS.names, zip(*paths, strict=True), strict=True))
    vectors = {
        "nodes": rng.normal(size=(len(tree), 4)).astype(np.float32),
        "items": rng.normal(size=(len(paths), 4)).astype(np.float32),
    }
    return Clusters(
        pa.table({name: list(values) for name, values in columns.items()}, schema=TREE),
        pa.table({name: list(values) for name, values in items.items()}, schema=ITEM_PATHS),
        {"interface_level": 2, "source": "learned"},
        vectors,
        _layout(world, rng),
    )


def _layout(world: World, rng: np.random.Generator) -> pa.Table:
    from newfound.schema import LAYOUT

    at = rng.uniform(-1, 1, size=(world.clusters, 2)).astype(np.float32)
    names = [f"c{cluster}" for cluster in range(world.clusters)]
    return pa.table({"node": names, "x": at[:, 0], "y": at[:, 1]}, schema=LAYOUT)


def _table(world: World, clusters: Clusters, rng: np.random.Generator, out: Path) -> None:
    from newfound.table.build import write_table

    size = len(clusters.interface)
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b][world.holes :]
    preference = rng.gumbel(size=(size, size)) * 0.7
    rows = np.zeros((len(pairs), size))
    for row, (a, b) in enumerate(pairs):
        rows[row] = preference[a] + 2 * preference[b] + 0.3 * rng.gumbel(size=size)
        rows[row, [a, b]] = -np.inf
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    record = {"source": "planner", "clusters_digest": clusters.digest, "planner": "made up"}
    write_table(np.array(pairs, dtype=np.int64), rows.astype(np.float16), record, clusters, out)


def _ranker(world: World, clusters: Clusters, rng: np.random.Generator, out: Path) -> None:
    import torch

    from newfound.ranker.artifact import Ranker
    from newfound.ranker.cooccurrence import CoOccurrence
    from newfound.ranker.model import Encoder

    config = RankerConfig(dim=world.dim, blocks=world.blocks, max_length=world.length)
    torch.manual_seed(world.seed)
    count = len(clusters.item_order)
    vectors = rng.normal(size=(count, world.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = min(16, count)
    neighbours = np.sort(rng.integers(0, count, size=(count, near)), axis=1)
    Ranker(
        encoder=Encoder(config),
        vectors=vectors,
        popularity=np.linspace(-1, 0, count, dtype=np.float32),
        cooccurrence=CoOccurrence(
            np.arange(count + 1, dtype=np.int64) * near,
            neighbours.ravel().astype(np.int64),
            rng.random(count * near).astype(np.float32),
            weight=0.1,
        ),
        items=clusters.item_order,
        slices={node: clusters.slice_of(node) for node in clusters.nodes},
        info={"config": config.model_dump(), "clusters_digest": clusters.digest},
    ).save(out)


def _decision(world: World, clusters: Clusters, out: Path) -> None:
    """All terms, made up: the ranker and the planner weigh most."""
    from newfound.recommend.cluster_terms import ClusterTerms
    from newfound.recommend.item_terms import COUNTS, ItemTerms
    from newfound.recommend.nested_logit import RECORD, Coefficients, DecisionModel
    from newfound.transitions.choice_model import ChoiceModel

    rng = np.random.default_rng(world.seed + 2)
    n, items = len(clusters.interface), len(clusters.item_order)
    out.mkdir(parents=True)
    counts, text = rng.normal(size=(items, len(COUNTS))), rng.normal(size=(items, 8))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    ItemTerms(counts.astype(np.float32), text.astype(np.float32)).save(out)
    bias, pull = rng.normal(size=n).astype(np.float32), rng.normal(size=(2, n, n)).astype(np.float32)
    ClusterTerms(ChoiceModel(bias, pull), rng.normal(size=n).astype(np.float32)).save(out)
    items_by = {"ranker": 0.4, "cooccurrence": 0.3, "popularity": 0.2, "approval": 0.2, "text": 1.0}
    model = DecisionModel(
        clusters_digest=clusters.digest,
        full=Coefficients(items=items_by, clusters={"planner": 1.0, "choice": 0.2, "demand": -0.2}, dissimilarity=0.8),
        without_planner=Coefficients(items=items_by, clusters={"choice": 0.4, "demand": -0.1}, dissimilarity=0.8),
    )
    (out / RECORD).write_text(model.model_dump_json(), encoding="utf-8")


def histories(world: World, users: int, length: int) -> list[dict[str, object]]:
    """Rows of schema.HISTORIES: user n's taste wanders over a few clusters; every fifth event is disliked."""
    rng = np.random.default_rng(world.seed + 1)
    rows = []
    for user in range(users):
        tastes = rng.permutation(world.clusters)[: max(2, min(world.clusters // 3, 3 + user % 7))]
        drawn = [f"i{rng.choice(tastes)}.{rng.integers(world.items)}" for _ in range(length)]
        items = list(dict.fromkeys(drawn))
        rows.append(
            {
                "user_id": f"u{user}",
                "event_timestamp": 1_700_000_000_000_000 + user,
                "item_ids": items,
                "times": [1_700_000_000_000 + step for step in range(len(items))],
                "engagements": [0.2 if step % 5 == 4 else 0.9 for step in range(len(items))],
                "positives": [step % 5 != 4 for step in range(len(items))],
            }
        )
    return rows


def history_table(rows: list[dict[str, object]]) -> pa.Table:
    """The rows as Feast's source file holds them."""
    columns = {name: [row[name] for row in rows] for name in HISTORIES.names}
    columns["event_timestamp"] = pa.array(columns["event_timestamp"], pa.int64()).cast(
        HISTORIES.field("event_timestamp").type
    )
    return pa.table(columns, schema=HISTORIES)
