"""Micro-batches of the ranker: queries of one iteration of the event loop share one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.query import JointAnswer, JointQuery
from serving.deadline import Deadline
from serving.http.errors import Expired
from serving.together import Together, Waiting


@dataclass(frozen=True, slots=True)
class _Query:
    ranker: JointRanker
    query: JointQuery
    deadline: Deadline


class MicroBatcher:
    """Ranks what comes together in one pass."""

    def __init__(self) -> None:
        self._together: Together[_Query, JointAnswer] = Together(self._take)

    async def rank(self, ranker: JointRanker, query: JointQuery, deadline: Deadline) -> JointAnswer:
        """The answer of `JointRanker.top_k`; the query's clusters must be known to the ranker.

        Raises:
            Expired: the deadline passed before the query's batch began.
        """
        return await self._together.ask(_Query(ranker, query, deadline))

    def _take(self, waiting: Sequence[Waiting[_Query, JointAnswer]]) -> None:
        for one in waiting:
            if not one.asked.deadline.left():
                one.put(Expired())
        left = [one for one in waiting if not one.answer.done()]
        for ranker in {id(one.asked.ranker): one.asked.ranker for one in left}.values():
            mine = [one for one in left if one.asked.ranker is ranker]
            try:
                found = ranker.top_k([one.asked.query for one in mine])
            except Exception as error:
                for one in mine:
                    one.put(error)
                continue
            for one, answer in zip(mine, found, strict=True):
                one.put(answer)
