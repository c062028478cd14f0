"""Writes what a release says about items: titles, popularity, near-duplicates."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.datasets import Dataset
from newfound.files import new_file
from newfound.schema import CATALOGUE, ITEM, POPULARITY, POSITIVE, TEXT, TITLE, TWINS
from newfound.types import Bools

log = logging.getLogger("newfound.release.items")

TWIN_COSINE: Final = 0.97  # of text vectors, from which two items of a cluster are near-duplicates
_WORD = re.compile(r"\w+")


def write_catalogue(
    dataset: Path, clusters: Path, out: Path, *, twin_cosine: float = TWIN_COSINE
) -> dict[str, float | int]:
    """Writes schema.CATALOGUE for every clustered item.

    Near-duplicates: items with the same words in their titles, and items of one cluster whose text vectors are closer
    than `twin_cosine` (two items that the same few people consumed are no duplicates for that).

    Args:
        dataset: folder of `load_interactions`.
        clusters: folder of `build_clusters`.
        out: the Parquet file.
        twin_cosine: cosine of text vectors from which items of a cluster are near-duplicates.

    Returns:
        `items`, and `twins`: items in a group of near-duplicates.
    """
    began = time.perf_counter()
    data, tree = Dataset(dataset), Clusters.load(clusters)
    liked = data.interactions.filter(data.interactions[POSITIVE])
    counts = liked.group_by(ITEM).agg(**{POPULARITY: liked.count()}).to_pyarrow()
    popularity = dict(zip(counts[ITEM].to_pylist(), counts[POPULARITY].to_pylist(), strict=True))
    described = data.items.select(ITEM, TITLE, TEXT).to_pyarrow()
    titles = dict(zip(described[ITEM].to_pylist(), described[TITLE].to_pylist(), strict=True))
    texts = dict(zip(described[ITEM].to_pylist(), described[TEXT].to_pylist(), strict=True))
    order = tree.item_order
    groups = _Groups(len(order))
    for left, right in _same_words([titles.get(item, item) for item in order], order):
        groups.join(left, right)
    with_text = np.array([bool(texts.get(item)) for item in order])
    for left, right in _close(tree, with_text, twin_cosine):
        groups.join(left, right)
    twins = groups.names(order)
    rows = sorted(range(len(order)), key=order.__getitem__)
    table = pa.table(
        {
            ITEM: [order[row] for row in rows],
            TITLE: [titles.get(order[row], order[row]) for row in rows],
            POPULARITY: [popularity.get(order[row], 0) for row in rows],
            TWINS: [twins[row] for row in rows],
        },
        schema=CATALOGUE,
    )
    with new_file(out) as file:
        pq.write_table(table, file)
    found = sum(twin is not None for twin in twins)
    log.info("catalogue: %d items, %d with near-duplicates, %.1f s", len(rows), found, time.perf_counter() - began)
    return {"items": len(rows), "twins": found}


class _Groups:
    """Sets that are joined pair by pair."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def _top(self, at: int) -> int:
        while self._above[at] != at:
            self._above[at] = self._above[self._above[at]]
            at = self._above[at]
        return at

    def join(self, left: int, right: int) -> None:
        self._above[self._top(left)] = self._top(right)

    def names(self, order: Sequence[str]) -> list[str | None]:
        """The first id of each one's group, None where it is alone."""
        members: dict[int, list[str]] = {}
        for at, item in enumerate(order):
            members.setdefault(self._top(at), []).append(item)
        firsts = {top: min(items) if len(items) > 1 else None for top, items in members.items()}
        return [firsts[self._top(at)] for at in range(len(order))]


def words_of(title: str) -> tuple[str, ...]:
    """A title's words: items whose titles have the same are near-duplicates."""
    return tuple(_WORD.findall(title.casefold()))


def _same_words(titles: Sequence[str], order: Sequence[str]) -> Iterator[tuple[int, int]]:
    first: dict[tuple[str, ...], int] = {}
    for at, title in enumerate(titles):
        words = words_of(title)
        if words and title != order[at]:  # an id that stands in for a title says nothing
            yield first.setdefault(words, at), at


def _close(tree: Clusters, with_text: Bools, cosine: float) -> Iterator[tuple[int, int]]:
    """Pairs within a cluster; within the leaves of clusters that are too large for all pairs."""
    at_once = 4096
    text = tree.vectors.get("text")
    if text is None:
        return
    nodes = list(tree.interface)
    while nodes:
        node = nodes.pop()
        start, stop = tree.slice_of(node)
        if stop - start > at_once and tree.children_of(node):
            nodes.extend(tree.children_of(node))
            continue
        rows = start + np.flatnonzero(with_text[start:stop])[:at_once]
        vectors = text[rows]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        left, right = np.nonzero(np.triu(vectors @ vectors.T >= cosine, 1))
        yield from zip(rows[left].tolist(), rows[right].tolist(), strict=True)
