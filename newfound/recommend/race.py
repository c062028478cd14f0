"""An exponential race of items for the novel slots of a slate.

Novel slots are drawn without replacement from a shortlist of items, by joint utility: a cluster's probability goes with
that of its best item that is left (Plackett 1975, Luce 1959). The draw is an exponential race: an item arrives after a
time of rate exp(utility / temperature), a cluster's next item sets out when its best was shown, and who arrives first
takes the slot. Waiting has no memory, so each slot's probability given the slots above it is the softmax of what is
left, and the same noise tells what the slate would have been under other utilities.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from newfound.types import Doubles

Ranked = Mapping[str, Sequence[tuple[str, float]]]
"""Cluster -> its items with their scores, best first."""


@dataclass(slots=True)
class Shown:
    """Items that are placed already, and the groups of near-duplicates that they belong to."""

    twins: Mapping[str, str]
    items: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)

    def add(self, item: str) -> None:
        """Places an item."""
        self.items.add(item)
        if item in self.twins:
            self.groups.add(self.twins[item])

    def is_twin(self, item: str) -> bool:
        """Whether a near-duplicate is placed already."""
        return self.twins.get(item) in self.groups

    def is_free(self, item: str) -> bool:
        """Whether neither it nor a near-duplicate is placed."""
        return item not in self.items and not self.is_twin(item)


class Shelves:
    """Each cluster's items, best first, without what is shown already and without near-duplicates of it."""

    def __init__(self, ranked: Ranked, shown: Shown) -> None:
        self._left = {cluster: list(reversed(items)) for cluster, items in ranked.items()}
        self._aside: dict[str, list[tuple[str, float]]] = {}
        self._shown = shown

    def best(self, cluster: str) -> tuple[str, float] | None:
        """The best item that may still be shown."""
        left = self._left.get(cluster, [])
        while left:
            if left[-1][0] in self._shown.items:
                left.pop()
            elif self._shown.is_twin(left[-1][0]):
                self._aside.setdefault(cluster, []).append(left.pop())
            else:
                return left[-1]
        return None

    def among(self, cluster: str, wanted: Collection[str]) -> list[tuple[str, float]]:
        """Those of the cluster's items that are wanted and may still be shown, best first."""
        left = reversed(self._left.get(cluster, []))
        return [entry for entry in left if entry[0] in wanted and self._shown.is_free(entry[0])]

    def best_or_twin(self, cluster: str) -> tuple[str, float] | None:
        """The best item, a near-duplicate where the cluster has nothing else: it shows rather than breaks the plan."""
        found = self.best(cluster)
        if found is None:
            found = next((entry for entry in self._aside.get(cluster, []) if entry[0] not in self._shown.items), None)
        return found


class Race:
    """Draws clusters for slots, one after the other.

    Args:
        shortlist: items with their joint utilities, best first.
        cluster_of: of each item.
        temperature: what utilities are divided by.
        noise: [items], exponential of rate 1, in the shortlist's order.
        shown: what must not be drawn; whoever shows an item adds it.
    """

    def __init__(
        self,
        shortlist: Sequence[tuple[str, float]],
        cluster_of: Mapping[str, str],
        temperature: float,
        noise: Doubles,
        shown: Shown,
    ) -> None:
        ranked: dict[str, list[tuple[str, float]]] = {}
        for item, utility in shortlist:
            ranked.setdefault(cluster_of[item], []).append((item, utility))
        self._shelves = Shelves(ranked, shown)
        top = shortlist[0][1] if shortlist else 0.0
        self._rate = {item: math.exp(max((u - top) / temperature, -700.0)) for item, u in shortlist}
        self._wait = {item: e / self._rate[item] for (item, _), e in zip(shortlist, noise.tolist(), strict=True)}
        self._now = 0.0
        self._arrival: dict[str, tuple[str, float]] = {}
        self._open = list(ranked)

    def heads(self) -> dict[str, tuple[str, float]]:
        """Each cluster's best item that is left, with its utility."""
        heads: dict[str, tuple[str, float]] = {}
        for cluster in self._open:
            head = self._shelves.best(cluster)
            if head is None:
                continue
            heads[cluster] = head
            if self._arrival.get(cluster, ("", 0.0))[0] != head[0]:
                self._arrival[cluster] = (head[0], self._now + self._wait[head[0]])
        return heads

    def shares(self, heads: Mapping[str, tuple[str, float]]) -> dict[str, float]:
        """Each cluster's probability to be first."""
        total = math.fsum(self._rate[item] for item, _ in heads.values())
        return {cluster: self._rate[item] / total for cluster, (item, _) in heads.items()}

    def first(self, heads: Mapping[str, tuple[str, float]]) -> str:
        """The first to arrive; the race goes on from there."""
        cluster = min(heads, key=lambda one: self._arrival[one][1])
        self._now = self._arrival[cluster][1]
        return cluster
