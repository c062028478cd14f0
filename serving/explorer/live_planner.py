"""Queries of the live planner: awaited as long as the request's deadline allows, their answers cached in any case."""

from __future__ import annotations

import asyncio

from newfound.recommend.decision import SUCCESSORS, PlannerAnswer, PlannerQuery
from serving.circuit_breaker import CircuitBreaker, Unavailable
from serving.deadline import Deadline
from serving.explorer.loaded_release import LoadedRelease
from serving.metrics import REMEMBERED
from serving.planner.client import PlannerClient
from serving.settings import ServingConfig


class LivePlanner:
    """Sends each query once at a time, and caches its answer.

    A query goes on after the request that sent it has given up: its answer serves the next one.

    Args:
        planner: None where there is no live planner.
        breaker: bounds the queries in flight.
        config: times.
    """

    def __init__(self, planner: PlannerClient | None, breaker: CircuitBreaker, config: ServingConfig) -> None:
        self.planner, self.breaker, self.config = planner, breaker, config
        self._running: dict[tuple[str, PlannerQuery], asyncio.Task[dict[str, float]]] = {}

    def is_there(self, loaded: LoadedRelease) -> bool:
        """Whether there is a planner for this release."""
        return self.planner is not None and loaded.prompts is not None

    async def answer(
        self, query: PlannerQuery, loaded: LoadedRelease, deadline: Deadline
    ) -> tuple[PlannerAnswer | None, int]:
        """The next clusters, or None where the planner did not answer in time; and how many it generated for this.

        Args:
            query: a context.
            loaded: the release that it is about.
            deadline: the request's.
        """
        key = (loaded.release, query)
        task = self._running.get(key)
        mine = task is None
        if task is None:
            task = self._running[key] = asyncio.create_task(self._send(query, loaded))
            task.add_done_callback(lambda done: self._done(key, done))
        patience = min(self.config.planner_ms / 1000, deadline.left(self.config.finish_ms + self.config.ranker_ms / 2))
        try:
            async with asyncio.timeout(patience):
                answer = await asyncio.shield(task)
        except (TimeoutError, Unavailable):
            return None, 0
        return answer, len(answer) if mine else 0

    async def _send(self, query: PlannerQuery, loaded: LoadedRelease) -> dict[str, float]:
        planner, prompts = self.planner, loaded.prompts
        assert planner is not None and prompts is not None
        seconds = self.config.planner_background_ms / 1000
        answer = await self.breaker.call(lambda _: planner.answer(query, SUCCESSORS, prompts), seconds)
        loaded.answer_cache.put(query, answer)
        REMEMBERED.set(len(loaded.answer_cache))
        return answer

    def _done(self, key: tuple[str, PlannerQuery], task: asyncio.Task[dict[str, float]]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # retrieved: whoever waited for it was told
