"""From a data set and its past to the clusters artifact."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from newfound import schema
from newfound.clusters import sources
from newfound.clusters.artifact import RECORD, Clusters
from newfound.clusters.describe import Describer, clean
from newfound.clusters.embed import Embedding, embed_items
from newfound.clusters.stable import Changes, match
from newfound.clusters.tree import Labels, balanced_kmeans, gini, grow, loads
from newfound.config import ClustersConfig
from newfound.datasets import Dataset
from newfound.errors import ConfigError, DataError
from newfound.features.user_history import Histories, read_histories
from newfound.types import Array, Doubles, Floats, Ints

log = logging.getLogger("newfound.clusters")

KEEPS_TEXT = 0.5  # share of its items that a node must share with its predecessor to keep its description


@dataclass(frozen=True)
class _Levels:
    """A tree as labels, before it has ids.

    Attributes:
        labels: [n, levels], from 0 within a level.
        interface: column of `labels` that is the interface.
        given: keywords by level and label, None where they are to be found.
        texts: descriptions by level and label that a designer wrote.
    """

    labels: Ints
    interface: int
    given: list[list[list[str]] | None]
    texts: list[dict[int, str]]


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
        Measures: clusters, Gini coefficients of sizes and traffic, and with `previous` what changed.

    Raises:
        ConfigError: the text model cannot be loaded, or the configuration contradicts itself.
        DataError: given clusters or the previous artifact cannot be used.
    """
    began = time.monotonic()
    items = Dataset(dataset).frame("items")
    past = read_histories(histories)
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
    levels = _levels(items, embedding, load, config, seed, old)
    log.info(
        "tree of %s clusters in %.1f s", "/".join(map(str, levels.labels.max(axis=0) + 1)), time.monotonic() - began
    )
    order, levels = _depth_first(levels, load, items[schema.ITEM].tolist())
    draft = _draft(items, levels, order, traffic)
    changes = match(old, draft) if old is not None else None
    ids, next_numbers = _ids(draft, old, changes)
    texts = _describe(items, embedding, load, traffic, levels, config, _kept_texts(old, draft, changes))
    clusters = _finish(draft, ids, texts, embedding, load, order, config, seed, next_numbers, changes)
    clusters.save(out)
    measures = _measures(clusters, changes)
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


# --- levels ---------------------------------------------------------------------------------------------------------


def _levels(
    items: pd.DataFrame,
    embedding: Embedding,
    load: Doubles,
    config: ClustersConfig,
    seed: int,
    old: Clusters | None,
) -> _Levels:
    vectors, coarse = embedding.items, config.coarse_sizes
    if config.source == "categories":
        given = sources.by_categories(items, load, config.leaf_items)
        assert given.parents is not None
        rest = grow(vectors, load, given.labels, (), config.leaf_items, config.balance, seed)
        labels = np.column_stack([given.parents, rest])
        return _Levels(labels, 1, [given.parent_names, given.names, None], [{}, {}, {}])
    if config.source == "file":
        if config.file is None:
            raise ConfigError("clusters.source 'file' needs `clusters.file`")
        given = sources.by_file(items, config.file)
        interface = _place_rest(vectors, load, given.labels)
        labels = grow(vectors, load, interface, coarse, config.leaf_items, config.balance, seed)
        level = labels.shape[1] - 2
        above: list[list[list[str]] | None] = [None] * level
        return _Levels(labels, level, [*above, given.names, None], [*({} for _ in above), given.texts, {}])
    size = min(config.interface_size, max(1, len(items) // 2))
    if size < config.interface_size:
        log.warning("%d items are too few for %d clusters: %d instead", len(items), config.interface_size, size)
    start = _labels_of(old, items, size)
    interface = balanced_kmeans(vectors, size, load, config.balance, seed, start)
    labels = grow(vectors, load, interface, coarse, config.leaf_items, config.balance, seed)
    return _Levels(labels, labels.shape[1] - 2, [None] * labels.shape[1], [{} for _ in range(labels.shape[1])])


def _labels_of(old: Clusters | None, items: pd.DataFrame, size: int) -> Labels | None:
    """Interface labels of an earlier fit to set out from, -1 for new items; None where they cannot be."""
    if old is None or len(old.interface) != size:
        return None
    found = np.array([old.index.get(old.cluster_of.get(item, ""), -1) for item in items[schema.ITEM]], dtype=np.int64)
    return found if len(np.unique(found[found >= 0])) == size else None


def _place_rest(vectors: Floats, load: Doubles, labels: Labels) -> Labels:
    """Items that were given no cluster go to the nearest one."""
    lost = np.flatnonzero(labels < 0)
    if len(lost):
        log.warning("%d items are in no given cluster and go to the nearest one", len(lost))
        centres = np.stack(
            [
                np.average(vectors[labels == label], axis=0, weights=load[labels == label])
                for label in range(int(labels.max()) + 1)
            ]
        )
        labels = labels.copy()
        for item in lost:
            labels[item] = ((centres - vectors[item]) ** 2).sum(axis=1).argmin()
    return labels


def _depth_first(levels: _Levels, load: Doubles, ids: list[str]) -> tuple[Ints, _Levels]:
    """Rows of the items in tree order, siblings by falling load; and the levels relabelled in that order."""
    labels = levels.labels
    keys: list[Array] = [np.array(ids)]
    for column in reversed(range(labels.shape[1])):
        carried = np.bincount(labels[:, column], load)
        rank = np.empty(len(carried), dtype=np.int64)
        rank[np.lexsort((np.arange(len(carried)), -carried.round(12)))] = np.arange(len(carried))
        keys.append(rank[labels[:, column]])
    order = np.lexsort(tuple(keys))
    fresh = np.empty_like(labels)
    given, texts = list(levels.given), list(levels.texts)
    for column in range(labels.shape[1]):
        seen = pd.unique(labels[order, column])
        place = np.empty(len(seen), dtype=np.int64)
        place[seen] = np.arange(len(seen))
        fresh[:, column] = place[labels[:, column]]
        names = given[column]
        if names is not None:
            given[column] = [names[label] for label in seen]
        texts[column] = {int(place[label]): text for label, text in texts[column].items()}
    return order, _Levels(fresh, levels.interface, given, texts)


# --- ids and descriptions -------------------------------------------------------------------------------------------


def _draft(items: pd.DataFrame, levels: _Levels, order: Ints, traffic: Ints) -> Clusters:
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


def _describe(
    items: pd.DataFrame,
    embedding: Embedding,
    load: Doubles,
    traffic: Ints,
    levels: _Levels,
    config: ClustersConfig,
    kept: dict[str, str],
) -> dict[str, str]:
    """Draft id -> description."""
    describer = Describer(items, embedding.items, load, traffic, config.keywords)
    texts: dict[str, str] = {}
    for level in range(levels.labels.shape[1]):
        name = f"{level + 1}."
        fixed = {int(node[len(name) :]): text for node, text in kept.items() if node.startswith(name)}
        written = {label: clean(text) for label, text in levels.texts[level].items()}
        fixed |= {label: text for label, text in written.items() if text}
        found = describer.level(levels.labels[:, level], fixed, levels.given[level], by_name=level >= levels.interface)
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
        "traffic_gini": gini(clusters.traffic),
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
