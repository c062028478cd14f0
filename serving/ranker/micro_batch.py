"""Requests that arrive in one turn of the event loop are ranked together: a batch costs little more than one does."""

from __future__ import annotations

import asyncio
from typing import Final

from newfound.ranker import Ranker
from newfound.ranker.index import ClusterQuery

AT_ONCE: Final = 16  # more would make the first of them wait for the last

Found = list[list[tuple[str, float]]]


class MicroBatcher:
    """Collects what is asked until the loop's next turn. Nobody waits for a batch to fill."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Ranker, ClusterQuery, asyncio.Future[Found]]] = []

    async def rank(self, ranker: Ranker, order: ClusterQuery) -> Found:
        """What `Ranker.top_k_per_cluster` answers; the order's clusters must be known to the ranker."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._work)
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.append((ranker, order, future))
        return await future

    def _work(self) -> None:
        waiting, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)
        for ranker in {id(one): one for one, _, _ in waiting}.values():
            mine = [(order, future) for one, order, future in waiting if one is ranker]
            try:
                found = ranker.top_k_per_cluster([order for order, _ in mine])
            except Exception as error:
                for _, future in mine:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(mine, found, strict=True):
                if not future.done():
                    future.set_result(answer)
