"""The levels of a tree as labels: learned, by categories or by a file; then in depth-first order."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from newfound import schema
from newfound.clusters import sources
from newfound.clusters.artifact import Clusters
from newfound.clusters.embed import Embedding
from newfound.clusters.granularity import default_size
from newfound.clusters.thin import without_thin
from newfound.clusters.tree import Labels, balanced_kmeans, grow
from newfound.config import ClustersConfig
from newfound.errors import ConfigError
from newfound.types import Array, Doubles, Floats, Ints

log = logging.getLogger("newfound.clusters")


@dataclass(frozen=True)
class Levels:
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


def find_levels(
    items: pd.DataFrame,
    embedding: Embedding,
    load: Doubles,
    traffic: Ints,
    users: int,
    config: ClustersConfig,
    seed: int,
    old: Clusters | None,
) -> Levels:
    """The tree's levels.

    Args:
        items: schema.ITEMS.
        embedding: their vectors.
        load: [n], what each item counts.
        traffic: [n] positive events.
        users: people behind them.
        config: how.
        seed: of all clusterings.
        old: an earlier fit to set out from.
    """
    vectors, coarse = embedding.items, config.coarse_sizes
    if config.source == "categories":
        given = sources.by_categories(items, load, config.leaf_items)
        assert given.parents is not None
        rest = grow(vectors, load, given.labels, (), config.leaf_items, config.balance, seed)
        labels = np.column_stack([given.parents, rest])
        return Levels(labels, 1, [given.parent_names, given.names, None], [{}, {}, {}])
    if config.source == "file":
        if config.file is None:
            raise ConfigError("clusters.source 'file' needs `clusters.file`")
        given = sources.by_file(items, config.file)
        interface = _place_rest(vectors, load, given.labels)
        labels = grow(vectors, load, interface, coarse, config.leaf_items, config.balance, seed)
        level = labels.shape[1] - 2
        above: list[list[list[str]] | None] = [None] * level
        return Levels(labels, level, [*above, given.names, None], [*({} for _ in above), given.texts, {}])
    size = _size(items, traffic, users, config)
    start = _labels_of(old, items, size)
    interface = balanced_kmeans(vectors, size, load, config.balance, seed, start)
    interface = without_thin(vectors, interface, load)
    labels = grow(vectors, load, interface, coarse, config.leaf_items, config.balance, seed)
    return Levels(labels, labels.shape[1] - 2, [None] * labels.shape[1], [{} for _ in range(labels.shape[1])])


def _size(items: pd.DataFrame, traffic: Ints, users: int, config: ClustersConfig) -> int:
    """Interface clusters to learn: as configured, or as many as the data carry."""
    if config.interface_size is None:
        size, reason = default_size(len(items), int(traffic.sum()), users)
        log.info("%d interface clusters: %s", size, reason)
        return size
    size = min(config.interface_size, max(1, len(items) // 2))
    if size < config.interface_size:
        log.warning("%d items are too few for %d clusters: %d instead", len(items), config.interface_size, size)
    return size


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


def depth_first(levels: Levels, load: Doubles, ids: list[str]) -> tuple[Ints, Levels]:
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
    return order, Levels(fresh, levels.interface, given, texts)
