"""The slate: items in slots, each with its reason and with the probability of the choice behind it.

`compose` is pure, like the policy that plans the slots. Its input is each planned cluster's items, best first, whether
they come from the ranker or, where it is down, from popularity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from newfound.recommend.policy import Kind, NovelSlot, Reason, familiar_probability, novel_positions

Ranked = Mapping[str, Sequence[tuple[str, float]]]
"""Cluster -> its items with their scores, best first."""


class SlateItem(BaseModel):
    """One slot of the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str
    title: str
    score: float | None = Field(description="the ranker's; null where popularity stood in for it")
    slot: Kind
    interest: str = Field(description="description of the item's cluster")
    cluster: str
    because: tuple[str, ...] = Field(description="the interests that led here, oldest first")
    propensity: float = Field(description="exact probability of (slot, cluster) under the policy that decided")
    reason: Reason


class Slate(BaseModel):
    """The answer to one request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="refer to it in feedback")
    release: str
    seed: int
    items: tuple[SlateItem, ...]
    degraded: tuple[str, ...] = Field(description="codes of the parts that were stepped around; empty in full service")


@dataclass(frozen=True, slots=True)
class Plan:
    """What each slot shall hold, before items are known.

    Attributes:
        k: slots in the slate.
        novel: the novel slots, in slate order.
        familiar: interests that familiar slots may show; the best item among all of them takes a slot.
        draws: for each familiar slot, the interest that exploration drew for it, or None.
        exploration: share of a familiar slot's choice that is uniform over `familiar`.
        eligible: how many clusters a novel slot could have been given to.
    """

    k: int
    novel: Sequence[NovelSlot]
    familiar: Sequence[str]
    draws: Sequence[str | None]
    exploration: float
    eligible: int

    @property
    def clusters(self) -> list[str]:
        """The clusters to rank: the novel slots' first, each once."""
        return list(dict.fromkeys([*(slot.cluster for slot in self.novel), *self.familiar]))

    def wanted(self, cluster: str) -> int:
        """The most items of a cluster that the slate may show, and a few more to keep near-duplicates apart."""
        if cluster in self.familiar:
            return len(self.draws) + 3
        return sum(slot.cluster == cluster for slot in self.novel) + 3


@dataclass(frozen=True, slots=True)
class Placed:
    """An item in its slot, with all that is logged about the choice.

    `candidates` holds the probability of every cluster above the uniform floor; `eligible` counts the clusters that the
    slot could have shown. A slot that nothing random decided has propensity 1 and no candidates.
    """

    item: str
    score: float
    cluster: str
    kind: Kind
    reason: Reason
    context: tuple[str, ...] = ()
    propensity: float = 1.0
    candidates: Mapping[str, float] | None = None
    floor: float = 0.0
    eligible: int = 0


class _Shelves:
    """Each cluster's items, best first, without what is placed already and without near-duplicates of it."""

    def __init__(self, ranked: Ranked, twins: Mapping[str, str]) -> None:
        self._left = {cluster: list(reversed(items)) for cluster, items in ranked.items()}
        self._twins = twins
        self._used: set[str] = set()
        self._groups: set[str] = set()
        self._aside: dict[str, list[tuple[str, float]]] = {}

    def best(self, cluster: str) -> tuple[str, float] | None:
        """The best item that may still be shown."""
        left = self._left.get(cluster, [])
        while left:
            if left[-1][0] in self._used:
                left.pop()
            elif self._twins.get(left[-1][0]) in self._groups:
                self._aside.setdefault(cluster, []).append(left.pop())
            else:
                return left[-1]
        return None

    def best_or_twin(self, cluster: str) -> tuple[str, float] | None:
        """The best item, a near-duplicate where the cluster has nothing else: it shows rather than breaks the plan."""
        found = self.best(cluster)
        if found is None:
            found = next((entry for entry in self._aside.get(cluster, []) if entry[0] not in self._used), None)
        return found

    def place(self, item: str) -> None:
        self._used.add(item)
        if item in self._twins:
            self._groups.add(self._twins[item])

    def is_free(self, item: str) -> bool:
        return item not in self._used and self._twins.get(item) not in self._groups


def compose(
    plan: Plan,
    ranked: Ranked,
    twins: Mapping[str, str],
    spare: Iterable[tuple[str, float, str, Kind]],
) -> list[Placed]:
    """Fills the planned slots, top to bottom.

    A novel slot takes its cluster's best remaining item. A familiar slot takes the best remaining item of all familiar
    clusters, or of the one that exploration drew. A slot whose clusters are exhausted takes the next spare item, with
    reason `popular`; when those run out too, the slate is shorter.

    Args:
        plan: the planned slots.
        ranked: items of every planned cluster, without those that must not be shown.
        twins: near-duplicates: item -> name of its group. Two of a group share a slate only where a novel cluster has
            nothing else.
        spare: item, score, cluster and kind of popular items, in the order in which they fill holes.
    """
    shelves = _Shelves(ranked, twins)
    spares = iter(spare)
    novel_at = dict(zip(novel_positions(plan.k, len(plan.novel)), plan.novel, strict=True))
    draws = iter(plan.draws)
    slate: list[Placed] = []
    for position in range(plan.k):
        slot = novel_at.get(position)
        placed = _novel(slot, shelves, plan) if slot else _familiar(next(draws), shelves, plan)
        if placed is None:
            found = next((entry for entry in spares if shelves.is_free(entry[0])), None)
            if found is None:
                continue
            item, score, cluster, kind = found
            placed = Placed(item, score, cluster, kind, Reason.POPULAR)
        shelves.place(placed.item)
        slate.append(placed)
    return slate


def _novel(slot: NovelSlot, shelves: _Shelves, plan: Plan) -> Placed | None:
    found = shelves.best_or_twin(slot.cluster)
    if found is None:
        return None
    return Placed(
        item=found[0],
        score=found[1],
        cluster=slot.cluster,
        kind=Kind.NOVEL,
        reason=slot.reason,
        context=() if slot.reason is Reason.EXPLORATION else slot.context,
        propensity=slot.propensity,
        candidates=slot.candidates,
        floor=slot.floor,
        eligible=plan.eligible,
    )


def _familiar(drawn: str | None, shelves: _Shelves, plan: Plan) -> Placed | None:
    heads = {cluster: head for cluster in plan.familiar if (head := shelves.best(cluster)) is not None}
    if not heads:
        return None
    best = max(heads, key=lambda cluster: heads[cluster][1])
    shown = drawn if drawn is not None and drawn in heads else best
    interests = len(plan.familiar)
    return Placed(
        item=heads[shown][0],
        score=heads[shown][1],
        cluster=shown,
        kind=Kind.FAMILIAR,
        reason=Reason.EXPLORATION if shown == drawn else Reason.FAMILIAR,
        propensity=familiar_probability(shown, best, heads, interests, plan.exploration),
        candidates={best: familiar_probability(best, best, heads, interests, plan.exploration)},
        floor=plan.exploration / interests,
        eligible=len(heads),
    )
