"""Calls of the ranker: instances of requests that come to it together share a call.

A call costs either side more than its instances do, and the ranker scores together what comes together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from newfound.recommend.slate import Offer
from serving.circuit_breaker import CircuitBreaker, Unavailable
from serving.explorer.ranker_client import NotLoaded, RankerClient, Rejected
from serving.together import Errands, Together, Waiting

log = logging.getLogger("newfound.serving.explorer")


@dataclass(frozen=True, slots=True)
class _Instance:
    """One for the ranker."""

    content: dict[str, Any]
    request_id: str
    until: float  # of the loop's time

    @property
    def release(self) -> str:
        return str(self.content["release"])


_Waiting = Waiting[_Instance, Offer | None]


class RankerCalls:
    """Asks the ranker.

    Args:
        ranker: takes the calls.
        breaker: bounds them.
    """

    def __init__(self, ranker: RankerClient, breaker: CircuitBreaker) -> None:
        self._ranker, self._breaker = ranker, breaker
        self._together: Together[_Instance, Offer | None] = Together(self._take)
        self._calls = Errands()

    async def rank(self, instances: Sequence[dict[str, Any]], request_id: str, seconds: float) -> list[Offer | None]:
        """The ranker's answer to each instance of a request, None where it has none in time.

        Args:
            instances: as the ranker takes them.
            request_id: for the logs of both sides.
            seconds: that the request waits; a call that it shares with patient ones goes on without it.

        Raises:
            NotLoaded: the ranker has not loaded the release of the request.
        """
        until = asyncio.get_running_loop().time() + seconds
        answers = [self._together.ask(_Instance(content, request_id, until)) for content in instances]
        try:
            await asyncio.wait(answers, timeout=seconds)
        finally:
            for answer in answers:
                answer.cancel()  # where there is none yet
        refused = [error for answer in answers if not answer.cancelled() and (error := answer.exception())]
        if refused:
            raise refused[0]
        return [None if answer.cancelled() else answer.result() for answer in answers]

    def _take(self, waiting: Sequence[_Waiting]) -> None:
        # While a release replaces another, requests are about either; a call is about one.
        for _, some in groupby(sorted(waiting, key=_release), key=_release):
            self._send(list(some))

    def _send(self, waiting: Sequence[_Waiting]) -> None:
        at = 0
        for body, contents in self._ranker.bodies([one.asked.content for one in waiting]):
            some = waiting[at : at + len(contents)]
            self._calls.start(self._call(body, contents, some), some)
            at += len(contents)

    async def _call(self, body: bytes, contents: Sequence[dict[str, Any]], waiting: Sequence[_Waiting]) -> None:
        first = waiting[0].asked.request_id
        left = max(one.asked.until for one in waiting) - asyncio.get_running_loop().time()
        offers: Sequence[Offer | NotLoaded | None] = [None] * len(waiting)
        try:
            offers = await self._breaker.call(lambda seconds: self._ranker.rank(body, contents, first, seconds), left)
        except NotLoaded as error:
            offers = [NotLoaded(error.loaded) for _ in waiting]
        except Rejected as error:
            if len(waiting) > 1:  # one of them is at fault, and the others fare better without it
                for one in waiting:
                    self._send([one])
                return
            log.error("the ranker rejects a request: %d", error.status, extra={"fields": {"request": first}})
        except Unavailable:
            pass
        for one, offer in zip(waiting, offers, strict=True):
            one.put(offer)


def _release(waiting: _Waiting) -> str:
    return waiting.asked.release
