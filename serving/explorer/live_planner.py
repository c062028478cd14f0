"""The live planner's answers: waited for as long as the request can wait, remembered in any case."""

from __future__ import annotations

import asyncio

from newfound.recommend.decision import PlannerQuery
from serving.circuit_breaker import CircuitBreaker, Unavailable
from serving.deadline import Deadline
from serving.explorer.loaded_release import LoadedRelease
from serving.metrics import REMEMBERED
from serving.planner.client import PlannerClient
from serving.settings import ServingConfig


class LivePlanner:
    """Asks the planner, each question once at a time.

    A question goes on after the request that asked it has given up: its answer serves the next one.

    Args:
        planner: None where there is none to ask.
        guard: bounds the questions in flight.
        config: times.
    """

    def __init__(self, planner: PlannerClient | None, guard: CircuitBreaker, config: ServingConfig) -> None:
        self.planner, self.guard, self.config = planner, guard, config
        self._asking: dict[tuple[str, PlannerQuery], asyncio.Task[list[str]]] = {}

    def is_there(self, held: LoadedRelease) -> bool:
        """Whether there is a planner to ask about this release."""
        return self.planner is not None and held.prompts is not None

    async def ask(
        self, ask: PlannerQuery, k: int, held: LoadedRelease, deadline: Deadline
    ) -> tuple[list[str] | None, int]:
        """The next clusters, or None where the planner did not answer in time; and how many it generated for this.

        Args:
            ask: the question.
            k: clusters wanted.
            held: the release that it is about.
            deadline: the request's.
        """
        key = (held.release, ask)
        task = self._asking.get(key)
        mine = task is None
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._answer(ask, k, held))
            task.add_done_callback(lambda done: self._done(key, done))
        patience = min(self.config.planner_ms / 1000, deadline.left(self.config.finish_ms + self.config.ranker_ms / 2))
        try:
            async with asyncio.timeout(patience):
                answer = await asyncio.shield(task)
        except (TimeoutError, Unavailable):
            return None, 0
        return answer, len(answer) if mine else 0

    async def _answer(self, ask: PlannerQuery, k: int, held: LoadedRelease) -> list[str]:
        planner, prompts = self.planner, held.prompts
        assert planner is not None and prompts is not None
        seconds = self.config.planner_background_ms / 1000
        answer = await self.guard.call(lambda: planner.answer(ask, k, prompts, held.release), seconds)
        held.memory.put(ask, answer)
        REMEMBERED.set(len(held.memory))
        return answer

    def _done(self, key: tuple[str, PlannerQuery], task: asyncio.Task[list[str]]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen: whoever waited for it was told
