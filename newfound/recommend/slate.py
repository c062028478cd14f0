"""The slate: items in slots, each with its reason and with the probability of the choice behind it.

Novel slots are drawn without replacement from a shortlist of items, by joint utility: a cluster's probability goes with
that of its best item that is left (Plackett 1975, Luce 1959). The draw is an exponential race: an item arrives after a
time of rate exp(utility / temperature), a cluster's next item sets out when its best was shown, and who arrives first
takes the slot. Waiting has no memory, so each slot's probability given the slots above it is the softmax of what is
left, and the same noise tells what the slate would have been under other utilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from newfound.recommend.policy import Kind, Reason, familiar_probability, novel_positions
from newfound.types import Context, Doubles

Ranked = Mapping[str, Sequence[tuple[str, float]]]
"""Cluster -> its items with their scores, best first."""

LISTED: Final = 1e-4  # share of a slot from which a cluster is logged by name


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
    propensity: float = Field(description="exact probability of the slot's cluster, given the slots above it")
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
class PlannerSay:
    """What the planner's term does to a decision.

    Attributes:
        reason: who spoke: the table, a live planner, pair frequencies.
        gain: by interest, what the term adds to the utility of its items.
        because: by interest, the context that speaks for it most.
    """

    reason: Reason
    gain: Mapping[str, float]
    because: Mapping[str, Context]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is decided before items are known.

    Attributes:
        k: slots in the slate.
        offsets: by interest that a novel slot may show, what its items get on top of their own utility.
        explored: for each novel slot, the interest that exploration drew for it, or None.
        familiar: interests that familiar slots may show; the best item among all of them takes a slot.
        draws: for each familiar slot, the interest that exploration drew for it, or None.
        exploration: share of a slot's choice that is uniform over the interests which it may show.
        temperature: what joint utilities are divided by.
        planner: the planner's part of the offsets; None where it has none.
        noise: seed of the race.
    """

    k: int
    offsets: Mapping[str, float]
    explored: Sequence[str | None]
    familiar: Sequence[str]
    draws: Sequence[str | None]
    exploration: float
    temperature: float
    planner: PlannerSay | None = None
    noise: int = 0

    @property
    def clusters(self) -> list[str]:
        """The clusters whose own best items are wanted beside the shortlist, each once."""
        return list(dict.fromkeys([*(cluster for cluster in self.explored if cluster), *self.familiar]))

    def wanted(self, cluster: str) -> int:
        """The most items of a cluster that the slate may show, and a few more to keep near-duplicates apart."""
        if cluster in self.familiar:
            return len(self.draws) + 3
        return len(self.explored) + 3


@dataclass(frozen=True, slots=True)
class Offer:
    """What a slate is made of: without what must not be shown, best first.

    Attributes:
        shortlist: items of new interests with their joint utilities.
        clusters: items of each of the plan's `clusters`.
        ranked: whether the ranker made it; popularity stands in for it otherwise.
    """

    shortlist: Sequence[tuple[str, float]]
    clusters: Ranked
    ranked: bool = True


@dataclass(frozen=True, slots=True)
class Placed:
    """An item in its slot, with all that is logged about the choice.

    `candidates` holds the probability of every cluster above the uniform floor (those below `LISTED` are left out);
    `eligible` counts the clusters that the slot could have shown. A slot that nothing random decided has propensity 1
    and no candidates.
    """

    item: str
    score: float
    cluster: str
    kind: Kind
    reason: Reason
    context: Context = ()
    propensity: float = 1.0
    candidates: Mapping[str, float] | None = None
    floor: float = 0.0
    eligible: int = 0


@dataclass(slots=True)
class _Shown:
    """Items that are placed already, and the groups of near-duplicates that they belong to."""

    twins: Mapping[str, str]
    items: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)

    def add(self, item: str) -> None:
        self.items.add(item)
        if item in self.twins:
            self.groups.add(self.twins[item])

    def is_twin(self, item: str) -> bool:
        return self.twins.get(item) in self.groups

    def is_free(self, item: str) -> bool:
        return item not in self.items and not self.is_twin(item)


class _Shelves:
    """Each cluster's items, best first, without what is shown already and without near-duplicates of it."""

    def __init__(self, ranked: Ranked, shown: _Shown) -> None:
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

    def best_or_twin(self, cluster: str) -> tuple[str, float] | None:
        """The best item, a near-duplicate where the cluster has nothing else: it shows rather than breaks the plan."""
        found = self.best(cluster)
        if found is None:
            found = next((entry for entry in self._aside.get(cluster, []) if entry[0] not in self._shown.items), None)
        return found


class _Race:
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
        shown: _Shown,
    ) -> None:
        ranked: dict[str, list[tuple[str, float]]] = {}
        for item, utility in shortlist:
            ranked.setdefault(cluster_of[item], []).append((item, utility))
        self._shelves = _Shelves(ranked, shown)
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
        """Who arrives first; the race goes on from there."""
        cluster = min(heads, key=lambda one: self._arrival[one][1])
        self._now = self._arrival[cluster][1]
        return cluster


def compose(
    plan: Plan,
    offer: Offer,
    cluster_of: Mapping[str, str],
    twins: Mapping[str, str],
    spare: Iterable[tuple[str, float, str, Kind]],
) -> list[Placed]:
    """Fills the slots, top to bottom.

    A novel slot shows the best remaining item of the cluster that wins the race, or of the one that exploration drew. A
    familiar slot takes the best remaining item of all familiar clusters, or of the one that exploration drew. A slot
    for which nothing is left takes the next spare item, with reason `popular`; when those run out too, the slate is
    shorter.

    Args:
        plan: the planned slots.
        offer: the items.
        cluster_of: of every item.
        twins: near-duplicates: item -> name of its group. Two of a group share a slate only where exploration drew a
            cluster that has nothing else.
        spare: item, score, cluster and kind of popular items, in the order in which they fill holes.
    """
    shown = _Shown(twins)
    noise = np.random.default_rng(plan.noise).standard_exponential(len(offer.shortlist))
    race = _Race(offer.shortlist, cluster_of, plan.temperature, noise, shown)
    shelves = _Shelves(offer.clusters, shown)
    spares = iter(spare)
    novel_at = dict(zip(novel_positions(plan.k, len(plan.explored)), plan.explored, strict=True))
    draws = iter(plan.draws)
    without = _without_planner(plan, offer, cluster_of, twins, noise)
    slate: list[Placed] = []
    for position in range(plan.k):
        if position in novel_at:
            placed = _novel(novel_at[position], race, shelves, plan, without, ranked=offer.ranked)
        else:
            placed = _familiar(next(draws), shelves, plan)
        if placed is None:
            found = next((entry for entry in spares if shown.is_free(entry[0])), None)
            if found is None:
                continue
            item, score, cluster, kind = found
            placed = Placed(item, score, cluster, kind, Reason.POPULAR)
        shown.add(placed.item)
        slate.append(placed)
    return slate


def _without_planner(
    plan: Plan, offer: Offer, cluster_of: Mapping[str, str], twins: Mapping[str, str], noise: Doubles
) -> frozenset[str]:
    """Items of the shortlist that the same noise would draw if the planner had said nothing."""
    if plan.planner is None or not plan.explored:
        return frozenset(item for item, _ in offer.shortlist)
    gain = plan.planner.gain
    changed = [(item, utility - gain.get(cluster_of[item], 0.0)) for item, utility in offer.shortlist]
    order = sorted(range(len(changed)), key=lambda at: -changed[at][1])
    shown = _Shown(twins)
    race = _Race([changed[at] for at in order], cluster_of, plan.temperature, noise[order], shown)
    for _ in plan.explored:
        heads = race.heads()
        if not heads:
            break
        shown.add(heads[race.first(heads)][0])
    return frozenset(shown.items)


def _novel(
    explored: str | None, race: _Race, shelves: _Shelves, plan: Plan, without: frozenset[str], *, ranked: bool
) -> Placed | None:
    heads = race.heads()
    shares = race.shares(heads) if heads else {}
    if explored is not None:
        cluster, found = explored, shelves.best_or_twin(explored)
    else:
        cluster = race.first(heads) if heads else ""
        found = heads.get(cluster)
    if found is None:
        return None
    floor = plan.exploration / len(plan.offsets)
    # Sums of floats may end a little above 1, which no probability may.
    listed = {
        one: min((1.0 - plan.exploration) * share + floor, 1.0)
        for one, share in shares.items()
        if share >= LISTED or one == cluster
    }
    say = plan.planner if explored is None and found[0] not in without else None
    own = Reason.RANKER if ranked else Reason.POPULAR
    reason = Reason.EXPLORATION if explored is not None else say.reason if say is not None else own
    return Placed(
        item=found[0],
        score=found[1],
        cluster=cluster,
        kind=Kind.NOVEL,
        reason=reason,
        context=say.because.get(cluster, ()) if say is not None else (),
        propensity=listed.get(cluster, floor),
        candidates=listed,
        floor=floor,
        eligible=len(plan.offsets),
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
