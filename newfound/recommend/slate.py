"""The slate: items in slots, each with its reason and with the probability of the choice behind it.

`compose` is pure, like the rules that plan the slots: novel slots are drawn by a race (`race.py`) from a shortlist of
items, familiar ones take the best of what the user likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from newfound.recommend.policy import Kind, Reason, familiar_probability, novel_positions
from newfound.recommend.race import Race, Ranked, Shelves, Shown
from newfound.types import Context, Doubles

NEW_SHARE: Final = 0.5  # of the slots that exploration gives to an interest with new items, those that show one
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
    """The planner's part in a decision.

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
    """A decision before items are known.

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
    """Candidates of a slate, best first, without what must not be shown.

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
    slot_kind: Kind
    reason: Reason
    context: Context = ()
    propensity: float = 1.0
    candidates: Mapping[str, float] | None = None
    floor: float = 0.0
    eligible: int = 0


def compose(
    plan: Plan,
    offer: Offer,
    cluster_of: Mapping[str, str],
    twins: Mapping[str, str],
    spare: Iterable[tuple[str, float, str, Kind]],
    new: Set[str] = frozenset(),
) -> list[Placed]:
    """Fills the slots, top to bottom.

    A novel slot shows the best remaining item of the cluster that wins the race, or of the one that exploration drew;
    half of the latter show one of its new items, where it has any, since those have no past to be chosen by. A
    familiar slot takes the best remaining item of all familiar clusters, or of the one that exploration drew. A slot
    for which nothing is left takes the next spare item, with reason `popular`; when those run out too, the slate is
    shorter.

    Args:
        plan: the planned slots.
        offer: the items.
        cluster_of: of every item.
        twins: near-duplicates: item -> name of its group. Two of a group share a slate only where exploration drew a
            cluster that has nothing else.
        spare: item, score, cluster and slot kind of popular items, in the order in which they fill holes.
        new: items that appeared after the release was made.
    """
    shown = Shown(twins)
    noise = np.random.default_rng(plan.noise).standard_exponential(len(offer.shortlist))
    race = Race(offer.shortlist, cluster_of, plan.temperature, noise, shown)
    shelves = Shelves(offer.clusters, shown)
    spares = iter(spare)
    novel_at = dict(zip(novel_positions(plan.k, len(plan.explored)), plan.explored, strict=True))
    draws = iter(plan.draws)
    without = _without_planner(plan, offer, cluster_of, twins, noise)
    slate: list[Placed] = []
    for position in range(plan.k):
        if position in novel_at:
            drawn = novel_at[position]
            fresh = _new_item(drawn, shelves, new, (plan.noise, position)) if drawn is not None and new else None
            placed = _novel(drawn, fresh, race, shelves, plan, without, ranked=offer.ranked)
        else:
            placed = _familiar(next(draws), shelves, plan)
        if placed is None:
            found = next((entry for entry in spares if shown.is_free(entry[0])), None)
            if found is None:
                continue
            item, score, cluster, slot_kind = found
            placed = Placed(item, score, cluster, slot_kind, Reason.POPULAR)
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
    shown = Shown(twins)
    race = Race([changed[at] for at in order], cluster_of, plan.temperature, noise[order], shown)
    for _ in plan.explored:
        heads = race.heads()
        if not heads:
            break
        shown.add(heads[race.first(heads)][0])
    return frozenset(shown.items)


def _new_item(explored: str, shelves: Shelves, new: Set[str], seed: tuple[int, int]) -> tuple[str, float] | None:
    """The new item that an explored slot shows; None where it shows the cluster's best. No other draw depends on it."""
    found = shelves.among(explored, new)
    rng = np.random.default_rng(seed)
    return found[int(rng.random() * len(found))] if found and rng.random() < NEW_SHARE else None


def _novel(
    explored: str | None,
    fresh: tuple[str, float] | None,
    race: Race,
    shelves: Shelves,
    plan: Plan,
    without: frozenset[str],
    *,
    ranked: bool,
) -> Placed | None:
    heads = race.heads()
    shares = race.shares(heads) if heads else {}
    if explored is not None:
        cluster, found = explored, fresh or shelves.best_or_twin(explored)
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
        slot_kind=Kind.NOVEL,
        reason=reason,
        context=say.because.get(cluster, ()) if say is not None else (),
        propensity=listed.get(cluster, floor),
        candidates=listed,
        floor=floor,
        eligible=len(plan.offsets),
    )


def _familiar(drawn: str | None, shelves: Shelves, plan: Plan) -> Placed | None:
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
        slot_kind=Kind.FAMILIAR,
        reason=Reason.EXPLORATION if shown == drawn else Reason.FAMILIAR,
        propensity=familiar_probability(shown, best, heads, interests, plan.exploration),
        candidates={best: familiar_probability(best, best, heads, interests, plan.exploration)},
        floor=plan.exploration / interests,
        eligible=len(heads),
    )
