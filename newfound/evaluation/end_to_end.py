"""Ranks of items: the ranker alone, the ranker inside clusters, slates end to end, and the quota curve.

The item policy is asked for scores of all items and everything else is set arithmetic on them, so that each method of
choosing clusters is measured with the very same ranker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.datasets import Dataset
from newfound.evaluation.moments import Events
from newfound.measures import ranks_of
from newfound.types import Bools, Ints, Reals

CHUNK = 256
CELLS = 1 << 26
"""Events scored at once, and scores held at once: what bounds the memory."""


class ItemScorer(Protocol):
    """The item policy."""

    @property
    def items(self) -> Sequence[str]:
        """Order of the columns of `score_all`."""

    def score_all(self, histories: list[list[str]]) -> Reals:
        """[B, items], higher is better, one row a history (oldest first)."""


class Popularity:
    """Items by how often they occur before the cut."""

    def __init__(self, dataset: Path, items: Sequence[str]) -> None:
        past = _past(dataset)
        counts = past.group_by(schema.ITEM).agg(n=past.count()).to_pyarrow().to_pydict()
        known = dict(zip(counts[schema.ITEM], counts["n"], strict=True))
        self.items = items
        self.counts = np.array([known.get(item, 0) for item in items], dtype=np.float64)

    def score_all(self, histories: list[list[str]]) -> Reals:
        return np.tile(self.counts, (len(histories), 1))


class Markov:
    """Items by how often they followed the last one before the cut; popularity decides what that leaves open."""

    def __init__(self, dataset: Path, popularity: Popularity) -> None:
        self.items = popularity.items
        self._column = {item: at for at, item in enumerate(self.items)}
        self._popular = popularity.counts / (popularity.counts.sum() + 1)
        past = _past(dataset)
        steps = past.mutate(after=past[schema.ITEM].lead().over(group_by=schema.USER, order_by=schema.POSITION))
        steps = steps.filter(steps["after"].notnull())
        counted = steps.group_by(schema.ITEM, "after").agg(n=steps.count()).to_pyarrow().to_pydict()
        self._next: dict[str, dict[str, int]] = {}
        for item, after, count in zip(*(counted[name] for name in (schema.ITEM, "after", "n")), strict=True):
            self._next.setdefault(item, {})[after] = count

    def score_all(self, histories: list[list[str]]) -> Reals:
        scores = np.tile(self._popular, (len(histories), 1))
        for row, history in enumerate(histories):
            for item, count in self._next.get(history[-1], {}).items() if history else ():
                if item in self._column:
                    scores[row, self._column[item]] += count
        return scores


def _past(dataset: Path) -> Any:
    """Everybody's events before their cut."""
    data = Dataset(dataset)
    events = data.interactions.inner_join(data.users[[schema.USER, schema.CUT]], schema.USER)
    return events.filter(events[schema.TIME] < events[schema.CUT])


class Catalogue:
    """The ranker's items as columns, with the cluster of each."""

    def __init__(self, items: Sequence[str], clusters: Clusters) -> None:
        self.items = list(items)
        self.column = {item: at for at, item in enumerate(self.items)}
        place = {item: clusters.index[cluster] for item, cluster in clusters.cluster_of.items()}
        self.cluster: Ints = np.array([place.get(item, -1) for item in self.items], dtype=np.int64)
        self.n = len(clusters.interface)
        order = np.argsort(self.cluster, kind="stable")
        bounds = np.searchsorted(self.cluster[order], np.arange(self.n + 1))
        self.members: list[Ints] = [order[bounds[c] : bounds[c + 1]] for c in range(self.n)]
        """columns of each cluster's items"""

    def columns(self, items: Sequence[str]) -> Ints:
        """Columns of items, -1 for one that the ranker does not know."""
        return np.array([self.column.get(item, -1) for item in items], dtype=np.int64)


def scored(ranker: ItemScorer, catalogue: Catalogue, events: Events) -> Iterator[tuple[slice, Reals]]:
    """The ranker's scores chunk by chunk, [b, items] each, consumed items at minus infinity."""
    size = max(1, min(CHUNK, CELLS // max(len(catalogue.items), 1)))
    for start in range(0, len(events), size):
        rows = slice(start, min(start + size, len(events)))
        histories = events.histories[rows]
        scores = np.array(ranker.score_all(histories), dtype=np.float32)
        for row, history in enumerate(histories):
            known = catalogue.columns(history)
            scores[row, known[known >= 0]] = -np.inf
        yield rows, scores


def item_ranks(ranker: ItemScorer, catalogue: Catalogue, events: Events) -> Ints:
    """Rank of each event's item among all items that the user has not consumed, [B]."""
    ranks = np.zeros(len(events), dtype=np.int64)
    columns = catalogue.columns(events.items)
    for rows, scores in scored(ranker, catalogue, events):
        ranks[rows] = ranks_of(scores, columns[rows])
    return ranks


def item_ranks_in_cluster(ranker: ItemScorer, catalogue: Catalogue, events: Events) -> tuple[Ints, Ints]:
    """Rank of each event's item within its true cluster, and how many items that cluster offers, [B] each."""
    ranks, offered = np.zeros(len(events), dtype=np.int64), np.zeros(len(events), dtype=np.int64)
    columns = catalogue.columns(events.items)
    for rows, scores in scored(ranker, catalogue, events):
        inside = catalogue.cluster[None, :] == events.labels[rows][:, None]
        ranks[rows] = ranks_of(scores, columns[rows], ~inside)
        offered[rows] = (inside & np.isfinite(scores)).sum(axis=1)
    return ranks, offered


def best_clusters(scores: Reals, seen: Bools, count: int) -> Ints:
    """The first `count` never-consumed clusters by score, ties by index, -1 where there are fewer, [B, count]."""
    masked = np.where(seen | ~np.isfinite(scores), -np.inf, scores)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :count]
    found: Ints = np.where(np.isfinite(np.take_along_axis(masked, order, axis=1)), order, -1)
    if found.shape[1] < count:
        found = np.pad(found, ((0, 0), (0, count - found.shape[1])), constant_values=-1)
    return found


class Shelves:
    """One moment's items by cluster, best first; sorted when first asked for."""

    def __init__(self, item_scores: Reals, catalogue: Catalogue) -> None:
        self._scores, self._catalogue = item_scores, catalogue
        self._sorted: dict[int, list[int]] = {}

    def of(self, cluster: int) -> list[int]:
        """Columns of the cluster's items that may be shown, ties by column."""
        if cluster not in self._sorted:
            columns = self._catalogue.members[cluster]
            columns = columns[np.isfinite(self._scores[columns])]
            self._sorted[cluster] = columns[np.argsort(-self._scores[columns], kind="stable")].tolist()
        return self._sorted[cluster]

    def slate(self, clusters: Sequence[int], k: int) -> list[int]:
        """k columns from clusters in turn: the best of each, then the second best of each; thin clusters are passed.

        Args:
            clusters: cluster indices, best first; negative ones are padding.
            k: slots.
        """
        queues = [self.of(cluster) for cluster in clusters if cluster >= 0]
        slate: list[int] = []
        depth = 0
        while len(slate) < k and any(len(queue) > depth for queue in queues):
            slate.extend([queue[depth] for queue in queues if len(queue) > depth][: k - len(slate)])
            depth += 1
        return slate


def end_to_end_ranks(
    ranker: ItemScorer, catalogue: Catalogue, events: Events, chosen: dict[str, Ints], k: int
) -> dict[str, Ints]:
    """Position of each event's item in the slate that each method's clusters lead to; k where it is not in it.

    Args:
        chosen: by method, [B, m] cluster indices, best first, as `best_clusters` gives them.
        k: slots in the slate.

    Returns:
        By method [B], and under `ranker_direct` the ranker's own best items of never-consumed clusters.
    """
    ranks = {name: np.full(len(events), k, dtype=np.int64) for name in [*chosen, "ranker_direct"]}
    targets = catalogue.columns(events.items)
    for rows, scores in scored(ranker, catalogue, events):
        for offset in range(len(scores)):
            row, shelves = rows.start + offset, Shelves(scores[offset], catalogue)
            for name, clusters in chosen.items():
                slate = shelves.slate(clusters[row].tolist(), k)
                if targets[row] in slate:
                    ranks[name][row] = slate.index(int(targets[row]))
        known = events.seen[rows][:, catalogue.cluster] | (catalogue.cluster < 0)
        ranks["ranker_direct"][rows] = np.minimum(ranks_of(scores, targets[rows], known), k)
    return ranks


def quota_curve(
    ranker: ItemScorer, catalogue: Catalogue, events: Events, clusters: Ints, k: int
) -> tuple[Reals, Bools]:
    """Hits of each novelty quota on the next item that a user liked.

    A slate of k with q novel slots holds, as the policy lays it out, the ranker's best items of consumed clusters, and
    in its novel slots the best item of each of the first q novel clusters in turn.

    Args:
        events: next liked items, novel or not.
        clusters: [B, m] novel clusters, best first.

    Returns:
        hits [k + 1, B] for q = 0 .. k, and [B], whether the item opened a new cluster.
    """
    found = np.zeros((k + 1, len(events)))
    targets = catalogue.columns(events.items)
    novel = ~events.seen[np.arange(len(events)), events.labels]
    for rows, scores in scored(ranker, catalogue, events):
        familiar = events.seen[rows][:, catalogue.cluster] & (catalogue.cluster >= 0)
        familiar_rank = ranks_of(scores, targets[rows], ~familiar)
        for offset in range(len(scores)):
            row = rows.start + offset
            slate = Shelves(scores[offset], catalogue).slate(clusters[row].tolist(), k)
            place = slate.index(int(targets[row])) if targets[row] in slate else k
            for quota in range(k + 1):
                found[quota, row] = familiar_rank[offset] < k - quota or place < min(quota, len(slate))
    return found, novel
