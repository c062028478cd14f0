"""A release as decisions need it: which cluster an item is in, what follows a context, what weighs how much.

Loading is quick and light (no torch); everything is read-only afterwards, so one instance serves all requests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.errors import ReleaseError, VocabularyError
from newfound.recommend.cluster_terms import ClusterTerms
from newfound.recommend.nested_logit import DecisionModel
from newfound.recommend.policy import Kind, Past, Reason
from newfound.release.new_items import NewItems
from newfound.release.takedown import Takedown
from newfound.schema import CATALOGUE, ITEM, POPULARITY, TITLE, TWINS
from newfound.types import Context, Floats

ITEMS_FILE: Final = "items.parquet"


class Table(Protocol):
    """The transition table's part that decisions need."""

    @property
    def info(self) -> Mapping[str, Any]: ...
    def log_probs(self, contexts: Sequence[Context]) -> Floats: ...
    def contexts(self) -> Iterable[Context]: ...


@dataclass(frozen=True, slots=True)
class UserHistory:
    """A user's events, oldest first, in parallel sequences.

    `seen_leaves` holds the leaves of everything ever consumed, where the events were cut to the last ones; it counts
    only if `clusters_digest` is the digest of the clusters in use.
    """

    item_ids: Sequence[str] = ()
    engagements: Sequence[float] = ()
    positives: Sequence[bool] = ()
    newest: int | None = None  # UTC milliseconds
    seen_leaves: Sequence[str] = ()
    clusters_digest: str = ""


class Catalogue:
    """One release's clusters, table and items.

    Args:
        release: its id.
        clusters: the tree of interests.
        table: the transition table; None where the release has none.
        items: schema.CATALOGUE, covering the clustered items.
        decision: what planner and ranker weigh; None: one each.
        cluster_terms: what else is known of interests; None: nothing.
    """

    def __init__(
        self,
        release: str,
        clusters: Clusters,
        table: Table | None,
        items: pa.Table,
        decision: DecisionModel | None = None,
        cluster_terms: ClusterTerms | None = None,
    ) -> None:
        self.release = release
        self.clusters = clusters
        self.table = table
        self.context_size = len(next(iter(table.contexts()), ("", ""))) if table is not None else 2
        self.decision = decision or DecisionModel()
        self.cluster_terms = cluster_terms or ClusterTerms.nothing(len(clusters.interface), self.context_size)
        self.table_reason = Reason.TABLE if table is not None and table.info.get("planner") else Reason.FREQUENCY
        self.cluster_of = clusters.cluster_of
        self.interface = tuple(clusters.interface)
        self.description = dict(zip(clusters.interface, clusters.descriptions, strict=True))
        spans = {cluster: clusters.slice_of(cluster) for cluster in self.interface}
        self.sizes = {cluster: stop - start for cluster, (start, stop) in spans.items()}
        self.new: frozenset[str] = frozenset()  # items that appeared after the release was made
        self._new_under: Mapping[str, Sequence[str]] = {}
        names = items[ITEM].to_pylist()
        self.titles: dict[str, str] = dict(zip(names, items[TITLE].to_pylist(), strict=True))
        missing = next((item for item in clusters.item_order if item not in self.titles), None)
        if missing is not None:
            raise ReleaseError(f"{ITEMS_FILE}: lacks item {missing!r}, which is in a cluster")
        self.twins: dict[str, str] = {
            item: group for item, group in zip(names, items[TWINS].to_pylist(), strict=True) if group is not None
        }
        counts = dict(zip(names, items[POPULARITY].to_pylist(), strict=True))
        self._popularity = np.array([counts[item] for item in clusters.item_order], dtype=np.int64)
        by_traffic = np.argsort(-clusters.traffic, kind="stable")
        self.popular_clusters: tuple[str, ...] = tuple(self.interface[at] for at in by_traffic)

    @classmethod
    def open(cls, folder: str | Path) -> Catalogue:
        """Reads a release folder, or one with the same layout.

        Raises:
            ReleaseError: a file is missing or does not fit the others.
        """
        from newfound.table import TransitionTable

        root = Path(folder)
        try:
            items = pq.read_table(root / ITEMS_FILE, columns=CATALOGUE.names).cast(CATALOGUE)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise ReleaseError(f"{root / ITEMS_FILE}: cannot be read ({' '.join(str(error).split())})") from error
        clusters = Clusters.load(root / "clusters")
        table = TransitionTable.load(root / "table", clusters) if (root / "table").is_dir() else None
        manifest = root / "manifest.json"
        release = json.loads(manifest.read_text())["id"] if manifest.is_file() else root.name
        if not (root / "decision").is_dir():
            return cls(release, clusters, table, items)
        decision = DecisionModel.load(root / "decision", clusters.digest)
        return cls(
            release, clusters, table, items, decision, ClusterTerms.load(root / "decision", len(clusters.interface))
        )

    def with_new(self, new: NewItems) -> Catalogue:
        """This catalogue with the new items of its release, which nobody has consumed.

        Raises:
            VocabularyError: they were made for other clusters, or one of them is no new item.
        """
        under: dict[str, list[str]] = {}
        cluster_of, titles, sizes = dict(self.cluster_of), dict(self.titles), dict(self.sizes)
        twins = dict(self.twins)
        for one in new.items:
            if one.item in cluster_of or one.leaf not in self._leaves:
                problem = "is in the release already" if one.item in cluster_of else f"has no leaf {one.leaf!r} there"
                raise VocabularyError(f"new item {one.item!r} {problem}; expected items of release {self.release}")
            path = [self.clusters.ancestor_of(one.leaf, level) for level in range(1, self.clusters.depth + 1)]
            for node in path:
                under.setdefault(node, []).append(one.item)
            cluster = path[self.clusters.interface_level - 1]
            cluster_of[one.item], titles[one.item] = cluster, one.title
            sizes[cluster] += 1
            if one.twin is not None:
                twins[one.item] = twins.setdefault(one.twin, one.twin)
        made = copy.copy(self)  # tree, table and what was computed of them are shared
        made.cluster_of, made.titles, made.sizes, made.twins = cluster_of, titles, sizes, twins
        made.new, made._new_under = frozenset(new.ids), under
        longer = {cluster: [*self._by_popularity[cluster], *under[cluster]] for cluster in sizes if cluster in under}
        made._by_popularity = {**self._by_popularity, **longer}
        return made

    def items_under(self, node: str) -> list[str]:
        """A node's items, the new ones last."""
        return [*self.clusters.items_under(node), *self._new_under.get(node, ())]

    @cached_property
    def _leaves(self) -> frozenset[str]:
        return frozenset(self.clusters.at_level(self.clusters.depth))

    # --- reading a history ------------------------------------------------------------------------------------------

    def past_of(self, history: UserHistory) -> tuple[Past, bool]:
        """The history in this release's clusters, and whether its `seen_leaves` were of another release (stale)."""
        clusters = [self.cluster_of.get(item) for item in history.item_ids]
        seen = {cluster for cluster in clusters if cluster is not None}
        stale = bool(history.seen_leaves) and history.clusters_digest != self.clusters.digest
        if not stale:
            level = self.clusters.interface_level
            seen.update(self._interface_of_leaf(leaf, level) for leaf in history.seen_leaves)
        return Past(clusters, history.engagements, history.positives, frozenset(seen)), stale

    def _interface_of_leaf(self, leaf: str, level: int) -> str:
        found = self._ancestors.get(leaf)
        if found is None:
            found = self._ancestors[leaf] = self.clusters.ancestor_of(leaf, level)
        return found

    @cached_property
    def _ancestors(self) -> dict[str, str]:
        return {}

    # --- what follows a context -------------------------------------------------------------------------------------

    def log_probs(self, contexts: Sequence[Context]) -> Floats:
        """The table's log-probabilities of all clusters, [P, N]; minus infinity throughout where it has no answer."""
        if self.table is None or not contexts:
            return np.full((len(contexts), len(self.interface)), -np.inf, dtype=np.float32)
        return self.table.log_probs(contexts)

    # --- items ------------------------------------------------------------------------------------------------------

    @cached_property
    def _by_popularity(self) -> dict[str, list[str]]:
        order, spans = self.clusters.item_order, map(self.clusters.slice_of, self.interface)
        return {
            cluster: [order[start + at] for at in np.argsort(-self._popularity[start:stop], kind="stable")]
            for cluster, (start, stop) in zip(self.interface, spans, strict=True)
        }

    def popular_items(self, cluster: str) -> list[str]:
        """The cluster's items, most positive interactions first, new items last."""
        return self._by_popularity[cluster]

    def warm(self) -> None:
        """Computes what the first request would otherwise wait for."""
        _ = self._by_popularity


@dataclass
class AvailableCatalogue:
    """A catalogue without what was taken down. Build a new one when the list changes."""

    catalogue: Catalogue
    takedown: Takedown = Takedown()
    blocked: frozenset[str] = field(init=False)
    blocked_in: Mapping[str, Sequence[str]] = field(init=False)
    available: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        clusters = self.catalogue.clusters
        blocked = {item for item in self.takedown.items if item in self.catalogue.cluster_of}
        known = set(clusters.nodes)
        for node in sorted(self.takedown.clusters & known):
            blocked.update(self.catalogue.items_under(node))
        self.blocked = frozenset(blocked)
        blocked_in: dict[str, list[str]] = {}
        for item in sorted(blocked):
            blocked_in.setdefault(self.catalogue.cluster_of[item], []).append(item)
        self.blocked_in = blocked_in
        sizes = self.catalogue.sizes
        self.available = {cluster: count - len(blocked_in.get(cluster, ())) for cluster, count in sizes.items()}

    def eligible(self, past: Past, exclude: Collection[str]) -> list[str]:
        """Clusters that a novel slot may show, in interface order: never consumed, and with an item left."""
        fewer: dict[str, int] = {}
        for item in set(exclude):
            cluster = self.catalogue.cluster_of.get(item)
            if cluster is not None and item not in self.blocked:
                fewer[cluster] = fewer.get(cluster, 0) + 1
        seen = past.seen
        return [
            cluster
            for cluster, count in self.available.items()
            if cluster not in seen and count > (fewer.get(cluster, 0) if fewer else 0)
        ]

    def popular(self, cluster: str, count: int, hidden: Collection[str]) -> list[tuple[str, float]]:
        """The cluster's most popular items with a score that falls with their rank, without what is hidden or down."""
        found: list[tuple[str, float]] = []
        for item in self.catalogue.popular_items(cluster):
            if len(found) == count:
                break
            if item not in hidden and item not in self.blocked:
                found.append((item, -float(len(found))))
        return found

    def spare(
        self,
        liked: Collection[str],
        eligible: Iterable[str],
        seen: Collection[str],
        count: int,
        hidden: Collection[str],
    ) -> Iterator[tuple[str, float, str, Kind]]:
        """Popular items that fill holes: of clusters once liked, then of never consumed ones, then of the rest.

        Within each of the three the most popular clusters come first, one item each, then a second one each, and so on.
        """
        new = set(eligible)
        rest = set(seen) - set(liked) - new
        for group, slot_kind in ((set(liked), Kind.FAMILIAR), (new, Kind.NOVEL), (rest, Kind.FAMILIAR)):
            order = [cluster for cluster in self.catalogue.popular_clusters if cluster in group]
            shelves = [(cluster, self.popular(cluster, count, hidden)) for cluster in order]
            for place in range(count):
                for cluster, items in shelves:
                    if place < len(items):
                        yield (*items[place], cluster, slot_kind)
