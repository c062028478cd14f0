"""One request, from a history to a slate, in steps between which a caller may wait.

`draft` reads the history; `Decision.ask` says whether a live planner should be asked, and what; `Decision.plan` weighs
what is known of every interest that is new; `Decision.query` is what the ranker is asked; `Decision.finish` fills the
slots from its answer. The recommender in this library, the batch job, evaluation and the explorer that serves requests
take the very same steps; they differ in who answers in between.
"""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from newfound.config import PolicyConfig
from newfound.events import AnswersEvent
from newfound.recommend.catalogue import AvailableCatalogue, UserHistory
from newfound.recommend.cluster_terms import FLOOR, has_answer, planner_term
from newfound.recommend.policy import (
    Interest,
    Reason,
    context_distribution,
    draw_explored,
    interests,
    novel_quota,
)
from newfound.recommend.query import JointQuery
from newfound.recommend.slate import Offer, Placed, Plan, PlannerSay, Slate, SlateItem, compose
from newfound.types import Bools, Context, Floats

SUCCESSORS: Final = 10  # of a context, that are reported and that a live planner is asked for
POPULAR_EACH: Final = 3  # items of an interest on the shortlist that stands in for the ranker's


@dataclass(frozen=True, slots=True)
class PlannerQuery:
    """Query to a live planner: the clusters that follow a context."""

    context: Context


PlannerAnswer = Mapping[str, float]
"""The likeliest next clusters, best first, with the natural logarithms of their probabilities."""


class AnswerCache:
    """Answers of live planners to the latest `size` contexts; an answer holds for every user."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._answers: OrderedDict[Context, dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, query: PlannerQuery, answer: PlannerAnswer) -> None:
        """Remembers an answer."""
        self._answers[query.context] = dict(answer)
        self._answers.move_to_end(query.context)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def get(self, context: Context) -> PlannerAnswer | None:
        """The answer, if there is one."""
        return self._answers.get(context)


@dataclass(frozen=True, slots=True)
class SlateRequest:
    """A request for a slate."""

    k: int
    novel: int | float | None = None
    exclude: frozenset[str] = frozenset()


class Decision:
    """A request under one release: what is known, and what was drawn. See `draft`."""

    def __init__(
        self,
        available: AvailableCatalogue,
        history: UserHistory,
        request: SlateRequest,
        seed: int,
        config: PolicyConfig,
        cache: AnswerCache | None,
    ) -> None:
        self.available, self.catalogue, self.request = available, available.catalogue, request
        self.seed, self.config = seed, config
        self.history, self._cache = history, cache
        self.past, self.stale = self.catalogue.past_of(history)
        self.hidden = request.exclude.union(history.item_ids)
        self.interests: list[Interest] = [
            interest for interest in interests(self.past, config) if available.available[interest.cluster]
        ]
        self.contexts = [
            (context, probability)
            for context, probability in context_distribution(self.interests, self.catalogue.context_size)
            if context
        ]
        self.eligible = available.eligible(self.past, request.exclude)
        quota = novel_quota(self.past, request.k, request.novel, config) if self.interests else request.k
        self.slots = min(quota, request.k) if self.eligible else 0
        self._table = self.catalogue.log_probs([context for context, _ in self.contexts])
        self._held = has_answer(self._table)

    @property
    def context(self) -> Context:
        """The likeliest context of the user's interests; empty for somebody without any."""
        return max(self.contexts, key=lambda one: one[1])[0] if self.contexts else ()

    @property
    def from_table(self) -> bool:
        """Whether the table holds any of the user's contexts."""
        return bool(self._held.any())

    def ask(self) -> PlannerQuery | None:
        """Query for a live planner; None where nothing needs asking.

        It is asked for the likeliest context where the table holds none of the user's: for a single interest, and for
        contexts outside a partial table.
        """
        if not self.slots or not self.contexts or self.from_table or self._cached() is not None:
            return None
        return PlannerQuery(self.context)

    def _cached(self) -> PlannerAnswer | None:
        return self._cache.get(self.context) if self._cache is not None else None

    def plan(self, answer: PlannerAnswer | None = None) -> Plan:
        """Weighs the interests that are new, and draws what exploration shows.

        Args:
            answer: what a live planner answered to `ask`; None where it was not asked or stayed silent.
        """
        catalogue, share = self.catalogue, self.config.exploration
        rng = np.random.default_rng(self.seed)
        allowed = np.zeros(len(catalogue.interface), dtype=bool)
        allowed[[catalogue.clusters.index[cluster] for cluster in self.eligible]] = True
        offsets, say = self._weigh(allowed, answer) if self.slots else ({}, None)
        explored = draw_explored(self.eligible, self.slots, share, rng)
        room = max(self.config.clusters_per_slate - self.slots, 1)
        strongest = sorted(self.interests, key=lambda interest: -interest.weight)[:room]
        familiar = [interest.cluster for interest in strongest] if self.request.k > self.slots else []
        draws = draw_explored(familiar, self.request.k - self.slots, share, rng)
        noise = int(rng.integers(2**63))
        return Plan(self.request.k, offsets, explored, familiar, draws, share, self.config.temperature, say, noise)

    def _weigh(self, allowed: Bools, answer: PlannerAnswer | None) -> tuple[dict[str, float], PlannerSay | None]:
        """Every eligible interest's offset, and the planner's part of it."""
        catalogue = self.catalogue
        weights = [probability for _, probability in self.contexts]
        answers, reason = self._table, catalogue.table_reason
        if not self.from_table and self.contexts:
            live = answer if answer is not None else self._cached()
            if live is not None:
                at = [context for context, _ in self.contexts].index(self.context)
                answers = answers.copy()
                answers[at] = self._spread(live)
                reason = Reason.PLANNER
        term = planner_term(answers, weights, allowed) if self.contexts else None
        places = np.array(
            [[catalogue.clusters.index[cluster] for cluster in context] for context, _ in self.contexts], dtype=np.int64
        )
        terms = catalogue.cluster_terms.of(places, weights, allowed)
        if term is None:
            return self._named(catalogue.decision.without_planner.offsets(terms)), None
        full = catalogue.decision.full
        offsets = self._named(full.offsets({**terms, "planner": term}))
        gain = self._named(np.float32(full.clusters.get("planner", 0.0)) * (term - term[allowed].mean()))
        held = has_answer(answers)
        spoken = np.where(held[:, None], np.array(weights)[:, None] * np.exp(answers.astype(np.float64)), -1.0)
        best = spoken.argmax(axis=0)
        because = {cluster: self.contexts[best[catalogue.clusters.index[cluster]]][0] for cluster in self.eligible}
        return offsets, PlannerSay(reason, gain, because)

    def _named(self, values: Floats) -> dict[str, float]:
        index = self.catalogue.clusters.index
        listed = values.tolist()
        return {cluster: listed[index[cluster]] for cluster in self.eligible}

    def _spread(self, answer: PlannerAnswer) -> Floats:
        """A live answer over all clusters: those that it does not name share what it leaves open evenly."""
        index, n = self.catalogue.clusters.index, len(self.catalogue.interface)
        left = max(1.0 - math.fsum(math.exp(value) for value in answer.values()), 1e-6)
        row = np.full(n, math.log(left / max(n - len(answer), 1)), dtype=np.float32)
        for cluster, value in answer.items():
            row[index[cluster]] = max(value, FLOOR)
        return row

    def query(self, plan: Plan) -> JointQuery:
        """Query for the ranker."""
        return JointQuery(
            history=self.history.item_ids,
            offsets=plan.offsets,
            k=self.config.shortlist if plan.explored else 0,
            clusters=plan.clusters,
            wanted=[plan.wanted(cluster) for cluster in plan.clusters],
            exclude=[*self.hidden, *self.available.blocked],
            planner=plan.planner is not None,
        )

    def popular(self, plan: Plan) -> Offer:
        """Stand-in for the ranker's answer: interests by their offsets alone, each with its most popular items."""
        order = sorted(plan.offsets, key=lambda cluster: -plan.offsets[cluster])
        shortlist: list[tuple[str, float]] = []
        for cluster in order[: max(self.config.shortlist // POPULAR_EACH, 1)]:
            for item, minus in self.available.popular(cluster, POPULAR_EACH, self.hidden):
                shortlist.append((item, plan.offsets[cluster] + minus))
        shortlist.sort(key=lambda one: -one[1])
        clusters = {
            cluster: self.available.popular(cluster, plan.wanted(cluster), self.hidden) for cluster in plan.clusters
        }
        return Offer(shortlist if plan.explored else [], clusters, ranked=False)

    def finish(self, plan: Plan, offer: Offer) -> list[Placed]:
        """Fills the slots."""
        liked = {
            cluster
            for cluster, positive in zip(self.past.clusters, self.past.positives, strict=True)
            if positive and cluster is not None
        }
        spare = self.available.spare(liked, self.eligible, self.past.seen, self.request.k, self.hidden)
        return compose(plan, offer, self.catalogue.cluster_of, self.catalogue.twins, spare, self.catalogue.new)

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
                    slot=entry.slot_kind,
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

    def answers_event(self, answer: PlannerAnswer | None = None, generated: int = 0) -> AnswersEvent:
        """Answer of table or planner to the likeliest context, before anything was taken out."""
        told: list[str] = []
        if answer is not None:
            told = list(answer)
        elif self.contexts:
            row = self._table[[context for context, _ in self.contexts].index(self.context)]
            best = np.argsort(-row, kind="stable")[:SUCCESSORS]
            told = [self.catalogue.interface[at] for at in best.tolist() if np.isfinite(row[at])]
        return AnswersEvent(
            successors=len(told),
            leaked=sum(cluster in self.past.seen for cluster in told),
            generated=generated,
            matched=len(answer or ()),
        )


def draft(
    available: AvailableCatalogue,
    history: UserHistory,
    request: SlateRequest,
    seed: int,
    config: PolicyConfig,
    cache: AnswerCache | None = None,
) -> Decision:
    """Reads a history under one release, and looks up what follows the user's interests.

    Args:
        available: the release, without what was taken down.
        history: oldest first.
        request: slots, the novel ones among them, and items to leave out.
        seed: of every random choice; same seed, same slate.
        config: the policy's.
        cache: earlier answers of a live planner.
    """
    return Decision(available, history, request, seed, config, cache)
