"""Micro-batches of the ranker: queries of one iteration of the event loop share one pass."""

from __future__ import annotations

import asyncio
from typing import Final

from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.query import JointAnswer, JointQuery
from serving.deadline import Deadline
from serving.http.errors import Expired

MOST: Final = 16  # the first query of a batch waits for its last


class MicroBatcher:
    """Collects queries until the loop's next iteration; none waits for a batch to fill."""

    def __init__(self) -> None:
        self._waiting: list[tuple[JointRanker, JointQuery, Deadline, asyncio.Future[JointAnswer]]] = []

    async def rank(self, ranker: JointRanker, query: JointQuery, deadline: Deadline) -> JointAnswer:
        """The answer of `JointRanker.top_k`; the query's clusters must be known to the ranker.

        Raises:
            Expired: the deadline passed before the query's batch began.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._run)
        future: asyncio.Future[JointAnswer] = loop.create_future()
        self._waiting.append((ranker, query, deadline, future))
        return await future

    def _run(self) -> None:
        waiting, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        for *_, deadline, future in waiting:
            if not deadline.left() and not future.done():
                future.set_exception(Expired())
        # Those whose sender has gone are cancelled, and those whose time is up have their exception.
        open_queries = [(ranker, query, future) for ranker, query, _, future in waiting if not future.done()]
        for ranker in {id(one): one for one, _, _ in open_queries}.values():
            mine = [(query, future) for one, query, future in open_queries if one is ranker]
            try:
                found = ranker.top_k([query for query, _ in mine])
            except Exception as error:
                for _, future in mine:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(mine, found, strict=True):
                if not future.done():
                    future.set_result(answer)
