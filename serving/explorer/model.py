"""The explorer as a KServe transformer: answers a user id with a slate, whatever else is down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kserve import Model
from kserve.errors import ModelNotReady

from newfound.recommend.catalogue import UserHistory
from newfound.recommend.decision import Decision, SlateRequest, draft
from newfound.recommend.recommender import SEED_BITS
from newfound.recommend.slate import Offer, Placed, Slate
from serving.circuit_breaker import CircuitBreaker, Unavailable
from serving.deadline import Deadline
from serving.explorer.features import Stored
from serving.explorer.job import Batch, Job
from serving.explorer.live_planner import LivePlanner
from serving.explorer.loaded_release import LoadedRelease
from serving.explorer.ranker_calls import RankerCalls
from serving.explorer.ranker_client import NotLoaded, RankerClient
from serving.explorer.reporting import Reporter
from serving.http.api import Recommend, answer, parse, request_model
from serving.http.context import current
from serving.metrics import DROPPED, STAGE_SECONDS, STALE_INTERESTS
from serving.releases import Releases
from serving.settings import ServingConfig

log = logging.getLogger("newfound.serving.explorer")

_FEATURES, _DECIDE, _RANK, _FINISH = (
    STAGE_SECONDS.labels(stage) for stage in ("features", "decide", "ranker", "finish")
)


class ExplorerModel(Model):
    """preprocess: features, policy, planner. predict: the ranker. postprocess: the slate, and what is reported of it.

    Args:
        name: the model's name.
        releases: those loaded.
        features: the stored histories; None where nothing is stored and requests bring their histories.
        ranker: the predictor.
        live_planner: the live planner, behind its breaker.
        reporter: metrics, logs, events.
        config: bounds and times.
        breakers: by part: `features`, `ranker`.
    """

    def __init__(
        self,
        name: str,
        releases: Releases[LoadedRelease],
        features: Stored | None,
        ranker: RankerClient,
        live_planner: LivePlanner,
        reporter: Reporter,
        config: ServingConfig,
        breakers: Mapping[str, CircuitBreaker],
    ) -> None:
        super().__init__(name)
        self.releases, self.features, self.live_planner = releases, features, live_planner
        self.reporter, self.config = reporter, config
        self._features_breaker, self._ranker_calls = breakers["features"], RankerCalls(ranker, breakers["ranker"])
        self.requests = request_model(config)
        self.ready = True  # as far as KServe's registry is concerned; `healthy` tells the truth

    async def healthy(self) -> bool:
        """Whether a release is loaded, the takedown list was read, and the feature store was tried."""
        return self.releases.get() is not None and (self.features is None or self.features.tried)

    async def preprocess(self, payload: Any, headers: Mapping[str, str] | None = None) -> Batch:
        """Validates, reads histories, decides on each slot's cluster."""
        context = current()
        requests: list[Recommend] = parse(self.requests, payload)
        loaded = self.releases.get()
        if loaded is None:
            raise ModelNotReady(self.name)
        context.take(len(requests))
        patience = min(request.deadline_ms or self.config.deadline_ms for request in requests)
        if context.timeout_s is not None:
            patience = min(patience, context.timeout_s * 1000)
        batch = Batch(payload, context.id, Deadline(patience, context.arrived), context.arrived, loaded)
        if len(requests) == 1:
            batch.jobs = [await self._prepare(requests[0], batch)]
        else:
            batch.jobs = list(await asyncio.gather(*(self._prepare(request, batch) for request in requests)))
        return batch

    async def predict(self, payload: Batch, headers: Mapping[str, str] | None = None) -> Batch:
        """Asks the ranker for the items of the planned clusters."""
        began = time.perf_counter()
        try:
            payload.offers = await self._rank(payload)
        except NotLoaded as error:
            # The ranker moved on before us, or we before it: the other release that both hold answers as a whole.
            other = self.releases.other(error.loaded)
            if other is not None:
                payload.loaded = other
                for job in payload.jobs:
                    self._decide_anew(job, other)
                with contextlib.suppress(NotLoaded):
                    payload.offers = await self._rank(payload)
        _RANK.observe(time.perf_counter() - began)
        return payload

    async def postprocess(self, result: Batch, headers: Mapping[str, str] | None = None) -> Any:
        """Fills the slots, answers in the protocol of the request, and reports what is shown."""
        began = time.perf_counter()
        slates, shown = [], []
        offers = result.offers or [None] * len(result.jobs)
        for job, offer in zip(result.jobs, offers, strict=True):
            if offer is None:
                job.degraded.append("ranker")
            placed = job.decision.finish(job.plan, offer or job.decision.popular(job.plan))
            slate = job.decision.slate(placed, ranked=offer is not None, degraded=job.degraded)
            slates.append(slate.model_dump(mode="json"))
            shown.append((job, placed, slate))
        # At the loop's next iteration: no client waits for a report.
        asyncio.get_running_loop().call_soon(self._report, result, time.monotonic() - result.arrived, shown)
        _FINISH.observe(time.perf_counter() - began)
        return answer(result.payload, slates, self.name)

    def _report(self, batch: Batch, seconds: float, shown: Sequence[tuple[Job, Sequence[Placed], Slate]]) -> None:
        for job, placed, slate in shown:
            try:
                self.reporter.shown(batch, job, placed, slate, seconds * 1000)
            except Exception:  # one that cannot be reported must not cost the others their events
                DROPPED.labels("report").inc()
                log.exception("an answer could not be reported", extra={"fields": {"request": batch.id}})

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _prepare(self, request: Recommend, batch: Batch) -> Job:
        began = time.perf_counter()
        degraded: list[str] = []
        history = await self._history(request, batch.deadline, degraded)
        _FEATURES.observe(time.perf_counter() - began)
        seed = secrets.randbits(SEED_BITS) if request.seed is None else request.seed
        began = time.perf_counter()
        decision = self._decide(request, history, seed, batch.loaded)
        if decision.stale:
            STALE_INTERESTS.inc()
        query, answer, generated = decision.ask(), None, 0
        planner = self.live_planner.is_there(batch.loaded)
        if query is not None and planner:
            answer, generated = await self.live_planner.answer(query, batch.loaded, batch.deadline)
            if answer is None:
                degraded.append("planner")
        plan = decision.plan(answer)
        self.reporter.answered(decision, query is not None and planner, answer)
        _DECIDE.observe(time.perf_counter() - began)
        return Job(request, history, seed, degraded, decision, plan, answer, generated)

    async def stored(self, user: str, seconds: float) -> UserHistory | None:
        """A user's stored history; None where nothing is stored of them.

        Raises:
            Unavailable: the feature store did not answer in time.
        """
        features = self.features
        if features is None:
            return None
        return await self._features_breaker.call(lambda _: features.read(user), seconds)

    async def _history(self, request: Recommend, deadline: Deadline, degraded: list[str]) -> UserHistory:
        stored = None
        if request.user_id is not None:
            try:
                stored = await self.stored(request.user_id, deadline.left(self.config.finish_ms))
            except Unavailable:
                degraded.append("features")
        if stored is None:
            stored = request.brought()
        return UserHistory() if stored is None else stored

    def _decide(self, request: Recommend, history: UserHistory, seed: int, loaded: LoadedRelease) -> Decision:
        available = loaded.available(self.releases.takedown)
        wanted = SlateRequest(request.k or loaded.policy.k, request.novel, frozenset(request.exclude))
        return draft(available, history, wanted, seed, loaded.policy, loaded.answer_cache)

    def _decide_anew(self, job: Job, loaded: LoadedRelease) -> None:
        """Decides again under another release, without another call of store or planner."""
        job.decision, job.answer = self._decide(job.request, job.history, job.seed, loaded), None
        job.plan = job.decision.plan()

    async def _rank(self, batch: Batch) -> list[Offer | None]:
        """The ranker's answer to each job, None where it has none.

        Raises:
            NotLoaded: the ranker has not loaded the batch's release.
        """
        instances = [self._instance(job, batch.loaded) for job in batch.jobs]
        answers = await self._ranker_calls.rank(instances, batch.id, batch.deadline.left(self.config.finish_ms))
        # The ranker knows of takedowns itself, but not in the same second; and it might answer anything.
        blocked = batch.loaded.available(self.releases.takedown).blocked
        cluster_of = batch.loaded.catalogue.cluster_of
        return [
            answer and _allowed(answer, job, blocked, cluster_of)
            for answer, job in zip(answers, batch.jobs, strict=True)
        ]

    def _instance(self, job: Job, loaded: LoadedRelease) -> dict[str, Any]:
        """A request of the ranker."""
        query, cluster_of = job.decision.query(job.plan), loaded.catalogue.cluster_of
        shown = {*query.clusters, *query.offsets}
        return {
            "history": list(query.history[-loaded.history_length :]),
            "clusters": query.clusters,
            "k": query.wanted,
            "exclude": [item for item in job.decision.hidden if cluster_of.get(item) in shown],
            "offsets": query.offsets if query.k else {},
            "shortlist": query.k,
            "planner": query.planner,
            "release": loaded.release,
        }


def _allowed(offer: Offer, job: Job, blocked: frozenset[str], cluster_of: Mapping[str, str]) -> Offer:
    """The offer, without what was taken down, and without what is of no interest that was asked for."""
    offsets = job.plan.offsets
    return Offer(
        [(item, u) for item, u in offer.shortlist if cluster_of.get(item) in offsets and item not in blocked],
        {
            cluster: [(item, score) for item, score in items if cluster_of.get(item) == cluster and item not in blocked]
            for cluster, items in offer.clusters.items()
        },
    )
