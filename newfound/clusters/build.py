"""From a data set and its past to the clusters artifact."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from newfound import schema
from newfound.clusters.artifact import RECORD, Clusters
from newfound.clusters.describe import Describer, clean
from newfound.clusters.embed import Embedding, embed_items, encoder_of
from newfound.clusters.fidelity import description_fidelity
from newfound.clusters.levels import Levels, depth_first, find_levels
from newfound.clusters.llm_describer import write_by_llm
from newfound.clusters.stable import Changes, match
from newfound.clusters.tree import loads
from newfound.config import ClustersConfig
from newfound.datasets import Dataset
from newfound.errors import DataError
from newfound.features.histories import Histories
from newfound.measures import gini
from newfound.types import Doubles, Floats, Ints

log = logging.getLogger("newfound.clusters")

KEEPS_TEXT = 0.5  # share of its items that a node must share with its predecessor to keep its description


def build_clusters(
    dataset: Path,
    histories: Path,
    config: ClustersConfig,
    seed: int,
    out: Path,
    previous: Path | None = None,
) -> dict[str, float | int | str]:
    """Finds (or takes over) interest clusters, describes them and writes the artifact.

    Args:
        dataset: folder of `load_interactions`; its items are clustered, also those without an interaction.
        histories: the past, the only behaviour that is read.
        config: how.
        seed: of everything random.
        out: the artifact folder.
        previous: an earlier artifact: learned clusters set out from it, and nodes that stay keep ids and descriptions.

    Returns:
        Measures: clusters, Gini coefficients of sizes and traffic, description fidelity, and with `previous` what
        changed.

    Raises:
        ConfigError: the text model cannot be loaded, or the configuration contradicts itself.
        DataError: given clusters or the previous artifact cannot be used.
    """
    began = time.monotonic()
    items = Dataset(dataset).frame("items")
    past = Histories.load(histories)
    old = Clusters.load(previous) if previous is not None else None
    if old is not None and "next_numbers" not in old.info:  # before anything takes its time
        raise DataError(
            f"{previous}/{RECORD}",
            "no `next_numbers`, so an id that another cluster had could be given again",
            expected="clusters that tell which ids are free; fit without a predecessor once",
        )
    traffic = _traffic(items[schema.ITEM].tolist(), past)
    load = loads(traffic)
    embedding = embed_items(items, past, config, seed)
    levels = find_levels(items, embedding, load, traffic, len(past), config, seed, old)
    log.info(
        "tree of %s clusters in %.1f s", "/".join(map(str, levels.labels.max(axis=0) + 1)), time.monotonic() - began
    )
    order, levels = depth_first(levels, load, items[schema.ITEM].tolist())
    draft = _draft(items, levels, order, traffic)
    changes = match(old, draft) if old is not None else None
    ids, next_numbers = _ids(draft, old, changes)
    describer = Describer(items, embedding.items, embedding.text, load, traffic, config.keywords, encoder_of(embedding))
    texts = _describe(describer, levels, config, _kept_texts(old, draft, changes))
    log.info("descriptions: %s", describer.means())
    clusters = _finish(draft, ids, texts, embedding, load, order, config, seed, next_numbers, changes)
    fidelity = description_fidelity(describer, levels.labels[:, levels.interface], embedding, seed)
    clusters.info["description_fidelity"] = fidelity
    clusters.save(out)
    measures = _measures(clusters, changes) | fidelity
    log.info("clusters described and written, %.1f s in all", time.monotonic() - began)
    return measures


def _traffic(ids: list[str], past: Histories) -> Ints:
    """Positive events of each item [n]."""
    place = {item: row for row, item in enumerate(ids)}
    try:
        rows = np.array([place[item] for item in past.item_ids[past.positives]], dtype=np.int64)
    except KeyError as error:
        raise DataError(
            "histories.parquet", f"item {error.args[0]!r}", column=schema.ITEM_IDS, expected="items of the data set"
        ) from error
    return np.bincount(rows, minlength=len(ids))


# --- ids and descriptions -------------------------------------------------------------------------------------------


def _draft(items: pd.DataFrame, levels: Levels, order: Ints, traffic: Ints) -> Clusters:
    """The tree with temporary ids, which are its descriptions as well."""
    paths = levels.labels[order]
    total = max(int(traffic.sum()), 1)
    carried = [np.bincount(column, traffic) for column in levels.labels.T]
    sizes = [np.bincount(column) for column in levels.labels.T]
    rows: list[tuple[str, str | None, int, str, int, float]] = []
    last: list[int] = [-1] * paths.shape[1]
    for path in paths.tolist():
        for level, label in enumerate(path):
            if last[level] != label:
                last[level] = label
                node = f"{level + 1}.{label}"
                parent = f"{level}.{path[level - 1]}" if level else None
                rows.append((node, parent, level + 1, node, int(sizes[level][label]), carried[level][label] / total))
    tree = pa.table(dict(zip(schema.TREE.names, zip(*rows, strict=True), strict=True)), schema=schema.TREE)
    names = [[f"{level + 1}.{label}" for level, label in enumerate(path)] for path in paths.tolist()]
    table = {schema.ITEM: items[schema.ITEM].to_numpy()[order], schema.PATH: names}
    return Clusters(tree, pa.table(table, schema=schema.ITEM_PATHS), {"interface_level": levels.interface + 1})


def _ids(draft: Clusters, old: Clusters | None, changes: Changes | None) -> tuple[dict[str, str], dict[str, int]]:
    """Draft id -> final id, the predecessor's or a fresh number of its level; and the numbers to go on with."""
    numbers: dict[str, int] = dict(old.info["next_numbers"]) if old is not None else {}
    ids: dict[str, str] = {}
    for node, level in zip(draft.nodes, draft.levels.tolist(), strict=True):
        kept = changes.kept.get(node) if changes is not None else None
        if kept is None:
            # Levels are counted from the interface, whose number is 0, so that a level more on top renames nothing.
            kind = {-1: "P", 0: "C", 1: "F"}.get(level - draft.interface_level, f"L{level - draft.interface_level}-")
            number = numbers.get(kind, 0)
            numbers[kind] = number + 1
            kept = f"{kind}{number:03d}"
        ids[node] = kept
    return ids, numbers


def _kept_texts(old: Clusters | None, draft: Clusters, changes: Changes | None) -> dict[str, str]:
    """Draft id -> the predecessor's description, where enough of its items stayed."""
    if old is None or changes is None:
        return {}
    texts = {}
    for new, was in changes.kept.items():
        before, now = set(old.items_under(was)), set(draft.items_under(new))
        if len(before & now) >= KEEPS_TEXT * len(before | now):
            texts[new] = old.description_of(was)
    return texts


def _describe(describer: Describer, levels: Levels, config: ClustersConfig, kept: dict[str, str]) -> dict[str, str]:
    """Draft id -> description."""
    texts: dict[str, str] = {}
    for level in range(levels.labels.shape[1]):
        name = f"{level + 1}."
        fixed = {int(node[len(name) :]): text for node, text in kept.items() if node.startswith(name)}
        written = {label: clean(text) for label, text in levels.texts[level].items()}
        fixed |= {label: text for label, text in written.items() if text}
        labels = levels.labels[:, level]
        if config.describer == "llm" and level == levels.interface:
            fixed |= write_by_llm(describer, labels, fixed, config)
        found = describer.level(
            labels,
            fixed,
            levels.given[level],
            by_name=level >= levels.interface,
            by_encoder=level <= levels.interface,  # leaves are many, and nobody reads them one by one
        )
        texts |= {f"{name}{label}": text for label, text in enumerate(found)}
    return texts


# --- the artifact ---------------------------------------------------------------------------------------------------


def _finish(
    draft: Clusters,
    ids: dict[str, str],
    texts: dict[str, str],
    embedding: Embedding,
    load: Doubles,
    order: Ints,
    config: ClustersConfig,
    seed: int,
    next_numbers: dict[str, int],
    changes: Changes | None,
) -> Clusters:
    """Draft ids out, final ids, descriptions, vectors and layout in."""
    tree = draft.tree.to_pydict()
    tree[schema.DESCRIPTION] = [texts[node] for node in tree[schema.NODE]]
    tree[schema.NODE] = [ids[node] for node in tree[schema.NODE]]
    tree[schema.PARENT] = [None if parent is None else ids[parent] for parent in tree[schema.PARENT]]
    paths = draft.items.to_pydict()
    paths[schema.PATH] = [[ids[node] for node in path] for path in paths[schema.PATH]]
    vectors, weights = embedding.items[order], load[order]
    weighted = np.vstack([np.zeros((1, vectors.shape[1])), np.cumsum(vectors * weights[:, None], axis=0)])
    carried = np.r_[0.0, np.cumsum(weights)]
    bounds = np.array([draft.slice_of(node) for node in draft.nodes])
    means = (weighted[bounds[:, 1]] - weighted[bounds[:, 0]]) / (carried[bounds[:, 1]] - carried[bounds[:, 0]])[:, None]
    nodes = means.astype(np.float32)
    at_interface = draft.levels == draft.interface_level
    text = {} if embedding.text is None else {"text": embedding.text[order]}
    info: dict[str, Any] = {
        "source": config.source,
        "interface_level": draft.interface_level,
        "depth": draft.depth,
        "sizes": [int((draft.levels == level).sum()) for level in range(1, draft.depth + 1)],
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "embedding": embedding.record,
        "next_numbers": next_numbers,
        "changes": changes.renamed(ids).record() if changes is not None else None,
    }
    return Clusters(
        pa.table(tree, schema=schema.TREE),
        pa.table(paths, schema=schema.ITEM_PATHS),
        info,
        {"nodes": nodes, "items": vectors, **text, **embedding.encoder},
        _layout([ids[node] for node in draft.interface], nodes[at_interface], seed),
    )


def _layout(interface: list[str], vectors: Floats, seed: int) -> pa.Table:
    """The map of interests: near on the map is near in the space of the vectors; both coordinates in [-1, 1]."""
    count = len(interface)
    centred = vectors - vectors.mean(axis=0)
    if 8 <= count <= 1500:
        from sklearn.manifold import TSNE

        tsne = TSNE(method="exact", init="pca", perplexity=min(15, (count - 1) / 3), random_state=seed, max_iter=600)
        points = np.asarray(tsne.fit_transform(centred), dtype=np.float64)
    else:
        left, strength, _ = np.linalg.svd(centred, full_matrices=False)
        points = np.zeros((count, 2))
        points[:, : min(2, len(strength))] = (left * strength)[:, :2]
    points -= (points.max(axis=0) + points.min(axis=0)) / 2
    points /= max(float(np.abs(points).max()), 1e-12)
    return pa.table({schema.NODE: interface, schema.X: points[:, 0], schema.Y: points[:, 1]}).cast(schema.LAYOUT)


def _measures(clusters: Clusters, changes: Changes | None) -> dict[str, float | int | str]:
    sizes = np.diff([clusters.slice_of(node) for node in clusters.interface], axis=1).ravel()
    measures: dict[str, float | int | str] = {
        "clusters": len(clusters.interface),
        "levels": clusters.depth,
        "leaves": len(clusters.at_level(clusters.depth)),
        "items": len(clusters.item_order),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "size_gini": gini(sizes),
        "traffic_gini": gini(clusters.traffic) if clusters.traffic.any() else 0.0,
        "largest_traffic": float(clusters.traffic.max()),
        "digest": clusters.digest,
    }
    if changes is not None:
        measures |= {
            "split": len(changes.split),
            "merged": len(changes.merged),
            "appeared": len(changes.appeared),
            "vanished": len(changes.vanished),
            "moved_items": changes.moved_items,
        }
    return measures
