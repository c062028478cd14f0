"""One request, from a history to a plan and from ranked items to a slate, in steps between which a caller may wait.

`draft` reads the history and samples a context; `Decision.ask` says whether a live planner should be asked, and what;
`Decision.plan` gives each slot its cluster; `Decision.finish` fills the slots with items. The recommender in this
library and the explorer that serves requests take the very same steps; they differ in who answers in between.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from newfound.config import PolicyConfig
from newfound.events import AnswersEvent
from newfound.recommend.catalogue import AvailableCatalogue, UserHistory
from newfound.recommend.policy import (
    Choice,
    Interest,
    Option,
    Reason,
    choose_novel,
    context_distribution,
    interests,
    novel_quota,
    rank_choices,
    sample_context,
)
from newfound.recommend.slate import Placed, Plan, Ranked, Slate, SlateItem, compose
from newfound.types import Context


@dataclass(frozen=True, slots=True)
class PlannerQuery:
    """What a live planner is asked: the clusters that follow a context, out of `allowed` (None: out of all)."""

    context: Context
    allowed: tuple[str, ...] | None


class AnswerCache:
    """What live planners answered, the latest `size` contexts; an answer serves every user for whom it is complete."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._answers: OrderedDict[Context, tuple[frozenset[str] | None, tuple[str, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, ask: PlannerQuery, clusters: Sequence[str]) -> None:
        """Remembers an answer."""
        allowed = None if ask.allowed is None else frozenset(ask.allowed)
        self._answers[ask.context] = (allowed, tuple(clusters))
        self._answers.move_to_end(ask.context)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def get(self, context: Context, eligible: frozenset[str]) -> tuple[str, ...]:
        """The answer, if it was chosen out of everything that is eligible now; else nothing."""
        allowed, clusters = self._answers.get(context, (None, ()))
        return clusters if allowed is None or eligible <= allowed else ()


@dataclass(frozen=True, slots=True)
class SlateRequest:
    """What a request asks for."""

    k: int
    novel: int | float | None = None
    exclude: frozenset[str] = frozenset()


class Decision:
    """A request under one release: what is known, and what was sampled. See `draft`."""

    def __init__(
        self,
        shelf: AvailableCatalogue,
        history: UserHistory,
        wish: SlateRequest,
        seed: int,
        config: PolicyConfig,
        memory: AnswerCache | None,
    ) -> None:
        self.shelf, self.catalogue, self.wish, self.seed, self.config = shelf, shelf.catalogue, wish, seed, config
        self.history = history
        self.past, self.stale = self.catalogue.past_of(history)
        self.hidden = wish.exclude.union(history.item_ids)
        self.interests: list[Interest] = [
            interest for interest in interests(self.past, config) if shelf.available[interest.cluster]
        ]
        self.distribution = context_distribution(self.interests, self.catalogue.context_size)
        self.eligible = shelf.eligible(self.past, wish.exclude)
        self._eligible = frozenset(self.eligible)
        quota = novel_quota(self.past, wish.k, wish.novel, config) if self.interests else wish.k
        self.slots = min(quota, len(self.eligible))
        self.rng = np.random.default_rng(seed)
        self.sampled = sample_context(self.distribution, self.rng)
        self._table = [self.catalogue.answers(context) for context, _ in self.distribution]
        self._open = [[choice for choice in table if choice.cluster in self._eligible] for table in self._table]
        self._remembered = [memory.get(context, self._eligible) if memory else () for context, _ in self.distribution]
        self._at_hand = [
            bool(table) or any(cluster in self._eligible for cluster in remembered)
            for table, remembered in zip(self._open, self._remembered, strict=True)
        ]

    @property
    def context(self) -> Context:
        """The sampled context."""
        return self.distribution[self.sampled][0]

    @property
    def from_table(self) -> bool:
        """Whether the table answers the sampled context for this user."""
        return bool(self._open[self.sampled])

    def ask(self) -> PlannerQuery | None:
        """What a live planner should be asked, or None where nothing needs asking.

        It is asked when the table cannot answer this user: for a single interest and for a context outside a partial
        table, out of all clusters; where every successor was consumed already, out of those never consumed.
        """
        if not self.slots or not self.context or self._at_hand[self.sampled]:
            return None
        return PlannerQuery(self.context, tuple(self.eligible) if self._table[self.sampled] else None)

    def plan(self, answer: Sequence[str] | None = None, *, planner: bool = False) -> Plan:
        """Gives each slot its cluster.

        Propensities are marginal over the contexts that would have been answered in the same way: those with an answer
        at hand; or the sampled context alone, where the planner was asked for it; or, where the planner stayed silent,
        those that it would have been needed for. Without a planner it is all contexts.

        Args:
            answer: what a live planner answered to `ask`, best first; None where it was not asked or stayed silent.
            planner: whether there is a planner to ask.
        """
        if answer is not None:
            options, sampled = [self._option(self.sampled, self._asked(answer))], 0
        else:
            same = [
                at
                for at in range(len(self.distribution))
                if not planner or self._at_hand[at] == self._at_hand[self.sampled]
            ]
            known = [self._open[at] or self._asked(self._remembered[at]) for at in same]
            options = [self._option(at, choices) for at, choices in zip(same, known, strict=True)] if self.slots else []
            sampled = same.index(self.sampled)
        share = self.config.exploration
        novel = choose_novel(options, sampled, self.eligible, self.slots, share, self.rng) if self.slots else []
        room = max(self.config.clusters_per_slate - len({slot.cluster for slot in novel}), 1)
        strongest = sorted(self.interests, key=lambda interest: -interest.weight)[:room]
        familiar = [interest.cluster for interest in strongest] if self.wish.k > len(novel) else []
        draws = [self._draw(familiar, share) for _ in range(self.wish.k - len(novel))]
        return Plan(self.wish.k, novel, familiar, draws, share, len(self.eligible))

    def _asked(self, answer: Sequence[str]) -> list[Choice]:
        return [Choice(cluster, Reason.PLANNER) for cluster in answer if cluster in self._eligible]

    def _option(self, at: int, open_choices: Sequence[Choice]) -> Option:
        context, probability = self.distribution[at]
        choices = tuple(open_choices[: self.slots])
        if len(choices) < self.slots:
            choices = rank_choices(self._back_off(context, choices), self._eligible, self.slots)
        return Option(context, probability, choices)

    def _back_off(self, context: Context, choices: Sequence[Choice]) -> Iterator[tuple[Reason, Sequence[str]]]:
        for choice in choices:
            yield choice.reason, (choice.cluster,)
        yield Reason.PARENT, self.catalogue.back_off(context)
        yield Reason.POPULAR, self.catalogue.popular_clusters

    def _draw(self, familiar: Sequence[str], share: float) -> str | None:
        explores, place = self.rng.random() < share, self.rng.random()
        return familiar[int(place * len(familiar))] if explores and familiar else None

    def hidden_in(self, clusters: Collection[str]) -> list[str]:
        """Items of these clusters that the ranker must leave out."""
        cluster_of = self.catalogue.cluster_of
        found = {item for item in self.hidden if cluster_of.get(item) in clusters}
        for cluster in clusters:
            found.update(self.shelf.blocked_in.get(cluster, ()))
        return list(found)

    def popular(self, plan: Plan) -> Ranked:
        """What stands in for the ranker: each planned cluster's most popular items."""
        return {cluster: self.shelf.popular(cluster, plan.wanted(cluster), self.hidden) for cluster in plan.clusters}

    def finish(self, plan: Plan, ranked: Ranked) -> list[Placed]:
        """Fills the slots."""
        liked = {
            cluster
            for cluster, positive in zip(self.past.clusters, self.past.positives, strict=True)
            if positive and cluster is not None
        }
        spare = self.shelf.spare(liked, self.eligible, self.past.seen, self.wish.k, self.hidden)
        return compose(plan, ranked, self.catalogue.twins, spare)

    def slate(self, placed: Sequence[Placed], *, ranked: bool, degraded: Sequence[str] = ()) -> Slate:
        """The answer for the client."""
        catalogue = self.catalogue
        return Slate(
            id=uuid.uuid4().hex,
            release=catalogue.release,
            seed=self.seed,
            items=tuple(
                SlateItem(
                    item=entry.item,
                    title=catalogue.titles[entry.item],
                    score=entry.score if ranked and entry.candidates is not None else None,
                    slot=entry.kind,
                    interest=catalogue.description[entry.cluster],
                    cluster=entry.cluster,
                    because=tuple(catalogue.description[cluster] for cluster in entry.context),
                    propensity=entry.propensity,
                    reason=entry.reason,
                )
                for entry in placed
            ),
            degraded=tuple(degraded),
        )

    def answers_event(self, answer: Sequence[str] | None = None, generated: int = 0) -> AnswersEvent:
        """What table and planner answered to the sampled context, before anything was taken out."""
        told = [choice.cluster for choice in self._table[self.sampled]]
        told += [cluster for cluster in answer or () if cluster not in told]
        return AnswersEvent(
            successors=len(told),
            leaked=sum(cluster in self.past.seen for cluster in told),
            generated=generated,
            matched=len(answer or ()),
        )


def draft(
    shelf: AvailableCatalogue,
    history: UserHistory,
    wish: SlateRequest,
    seed: int,
    config: PolicyConfig,
    memory: AnswerCache | None = None,
) -> Decision:
    """Reads a history under one release, samples a context, and looks up what follows it.

    Args:
        shelf: the release, without what was taken down.
        history: oldest first.
        wish: what the request asks for.
        seed: of every random choice; same seed, same slate.
        config: the policy's.
        memory: earlier answers of a live planner.
    """
    return Decision(shelf, history, wish, seed, config, memory)
