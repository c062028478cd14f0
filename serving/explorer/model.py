"""The explorer as a KServe transformer: from a user id to a slate, whatever else is down."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kserve import Model
from kserve.errors import ModelNotReady

from newfound.recommend.catalogue import UserHistory
from newfound.recommend.decision import Decision, SlateRequest, draft
from newfound.recommend.recommender import SEED_BITS
from newfound.recommend.slate import Placed, Plan, Ranked, Slate
from serving.circuit_breaker import CircuitBreaker, Unavailable
from serving.deadline import Deadline
from serving.explorer.features import Stored
from serving.explorer.live_planner import LivePlanner
from serving.explorer.loaded_release import LoadedRelease
from serving.explorer.ranker_client import NotHeld, RankerClient
from serving.explorer.reporting import Reporter
from serving.http.api import Recommend, answer, parse, request_model
from serving.metrics import STAGE_SECONDS, STALE_INTERESTS
from serving.releases import Releases
from serving.settings import ServingConfig

_FEATURES, _DECIDE, _RANK, _FINISH = (
    STAGE_SECONDS.labels(stage) for stage in ("features", "decide", "ranker", "finish")
)


@dataclass(slots=True)
class Job:
    """One request on its way."""

    wish: Recommend
    history: UserHistory
    seed: int
    degraded: list[str]
    draft: Decision
    plan: Plan
    answer: list[str] | None
    generated: int


@dataclass(slots=True)
class Batch:
    """The requests of one body: one release, one deadline."""

    request: Any
    id: str
    deadline: Deadline
    arrived: float
    held: LoadedRelease
    jobs: list[Job] = field(default_factory=list)
    ranked: list[Ranked] | None = None


class ExplorerModel(Model):
    """preprocess: features, policy, planner. predict: the ranker. postprocess: the slate, and what is reported of it.

    Args:
        name: the model's name.
        releases: the releases held.
        features: the stored histories; None where nothing is stored and requests bring their histories.
        ranker: the predictor.
        planning: the live planner, behind its guard.
        reporter: metrics, logs, events.
        config: bounds and times.
        guards: by part: `features`, `ranker`.
    """

    def __init__(
        self,
        name: str,
        releases: Releases[LoadedRelease],
        features: Stored | None,
        ranker: RankerClient,
        planning: LivePlanner,
        reporter: Reporter,
        config: ServingConfig,
        guards: Mapping[str, CircuitBreaker],
    ) -> None:
        super().__init__(name)
        self.releases, self.features, self.ranker, self.planning = releases, features, ranker, planning
        self.reporter, self.config = reporter, config
        self._features_guard, self._ranker_guard = guards["features"], guards["ranker"]
        self.requests = request_model(config)
        self.ready = True  # as far as KServe's registry is concerned; `healthy` tells the truth

    async def healthy(self) -> bool:
        """Whether a release is loaded: without one there is nothing to answer with."""
        return self.releases.get() is not None

    async def preprocess(self, payload: Any, headers: Mapping[str, str] | None = None) -> Batch:
        """Validates, reads histories, decides on each slot's cluster."""
        headers = headers or {}
        arrived = float(headers.get("x-newfound-arrived") or time.monotonic())
        wishes: list[Recommend] = parse(self.requests, payload)
        held = self.releases.get()
        if held is None:
            raise ModelNotReady(self.name)
        patience = min(wish.deadline_ms or self.config.deadline_ms for wish in wishes)
        batch = Batch(payload, headers.get("x-request-id", ""), Deadline(patience, arrived), arrived, held)
        if len(wishes) == 1:
            batch.jobs = [await self._prepare(wishes[0], batch)]
        else:
            batch.jobs = list(await asyncio.gather(*(self._prepare(wish, batch) for wish in wishes)))
        return batch

    async def predict(self, payload: Batch, headers: Mapping[str, str] | None = None) -> Batch:
        """Asks the ranker for the items of the planned clusters."""
        began = time.perf_counter()
        try:
            payload.ranked = await self._rank(payload)
        except NotHeld as error:
            # The ranker moved on before us, or we before it: the other release that both hold answers as a whole.
            other = self.releases.other(error.held)
            if other is not None:
                payload.held = other
                for job in payload.jobs:
                    self._decide_anew(job, other)
                try:
                    payload.ranked = await self._rank(payload)
                except (NotHeld, Unavailable):
                    payload.ranked = None
        except Unavailable:
            payload.ranked = None
        _RANK.observe(time.perf_counter() - began)
        return payload

    async def postprocess(self, result: Batch, headers: Mapping[str, str] | None = None) -> Any:
        """Fills the slots, answers in the protocol of the request, and reports what is shown."""
        began = time.perf_counter()
        slates, shown = [], []
        for at, job in enumerate(result.jobs):
            if result.ranked is None:
                job.degraded.append("ranker")
            ranked = job.draft.popular(job.plan) if result.ranked is None else result.ranked[at]
            placed = job.draft.finish(job.plan, ranked)
            slate = job.draft.slate(placed, ranked=result.ranked is not None, degraded=job.degraded)
            slates.append(slate.model_dump(mode="json"))
            shown.append((job, placed, slate))
        # At the loop's next turn: nobody waits for what is only said about an answer.
        asyncio.get_running_loop().call_soon(self._report, result, time.monotonic() - result.arrived, shown)
        _FINISH.observe(time.perf_counter() - began)
        return answer(result.request, slates, self.name)

    def _report(self, batch: Batch, seconds: float, shown: Sequence[tuple[Job, Sequence[Placed], Slate]]) -> None:
        for job, placed, slate in shown:
            self.reporter.shown(batch, job, placed, slate, seconds * 1000)

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _prepare(self, wish: Recommend, batch: Batch) -> Job:
        began = time.perf_counter()
        degraded: list[str] = []
        history = await self._history(wish, batch.deadline, degraded)
        _FEATURES.observe(time.perf_counter() - began)
        seed = secrets.randbits(SEED_BITS) if wish.seed is None else wish.seed
        began = time.perf_counter()
        made = self._draft(wish, history, seed, batch.held)
        if made.stale:
            STALE_INTERESTS.inc()
        ask, answer, generated = made.ask(), None, 0
        planner = self.planning.is_there(batch.held)
        if ask is not None and planner:
            answer, generated = await self.planning.ask(ask, made.slots, batch.held, batch.deadline)
            if answer is None:
                degraded.append("planner")
        plan = made.plan(answer, planner=planner)
        self.reporter.answered(made, ask is not None and planner, answer)
        _DECIDE.observe(time.perf_counter() - began)
        return Job(wish, history, seed, degraded, made, plan, answer, generated)

    async def stored(self, user: str, seconds: float) -> UserHistory | None:
        """A user's stored history; None where nothing is stored of them.

        Raises:
            Unavailable: the feature store did not answer in time.
        """
        features = self.features
        if features is None:
            return None
        return await self._features_guard.call(lambda: features.read(user), seconds)

    async def _history(self, wish: Recommend, deadline: Deadline, degraded: list[str]) -> UserHistory:
        stored = None
        if wish.user_id is not None:
            try:
                stored = await self.stored(wish.user_id, deadline.left(self.config.finish_ms))
            except Unavailable:
                degraded.append("features")
        if stored is None:
            stored = wish.brought()
        return UserHistory() if stored is None else stored

    def _draft(self, wish: Recommend, history: UserHistory, seed: int, held: LoadedRelease) -> Decision:
        shelf = held.shelf(self.releases.takedown)
        asked = SlateRequest(wish.k or held.policy.k, wish.novel, frozenset(wish.exclude))
        return draft(shelf, history, asked, seed, held.policy, held.memory)

    def _decide_anew(self, job: Job, held: LoadedRelease) -> None:
        """Under another release, without asking anyone again."""
        job.draft, job.answer = self._draft(job.wish, job.history, job.seed, held), None
        job.plan = job.draft.plan(None, planner=self.planning.is_there(held))

    async def _rank(self, batch: Batch) -> list[Ranked]:
        instances = []
        for job in batch.jobs:
            clusters = job.plan.clusters
            instances.append(
                {
                    "history": list(job.history.item_ids[-batch.held.history_length :]),
                    "clusters": clusters,
                    "k": [job.plan.wanted(cluster) for cluster in clusters],
                    "exclude": job.draft.hidden_in(clusters),
                    "release": batch.held.release,
                }
            )
        left = batch.deadline.left(self.config.finish_ms)
        return await self._ranker_guard.call(lambda: self.ranker.rank(instances, batch.id), left)
