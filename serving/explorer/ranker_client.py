"""Client of the ranker: KServe's v1 protocol over kept-alive connections."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import aiohttp
import orjson

from newfound.recommend.slate import Offer
from serving.http.context import REQUEST_ID, TIMEOUT

_JSON = {"Content-Type": "application/json"}


class NotLoaded(Exception):
    """The ranker has not loaded the release of the request.

    Args:
        loaded: releases that it has loaded.
    """

    def __init__(self, loaded: Sequence[str]) -> None:
        self.loaded = tuple(loaded)
        super().__init__(", ".join(loaded))


class Rejected(Exception):
    """The ranker refused the request, which is the explorer's fault: others may fare better.

    Args:
        status: HTTP status, 4xx.
    """

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(str(status))


class RankerClient:
    """The predictor's endpoint. KServe's own client, on httpx, takes four times the processor time for one call.

    Args:
        host: host and port, as KServe's controller passes them.
        model: the model's name.
        connections: most open at a time.
        body_bytes: what a body of several instances stays below; one instance may be larger.
    """

    def __init__(self, host: str, model: str, connections: int, body_bytes: int) -> None:
        self._predict = f"{_base(host)}/v1/models/{model}:predict"
        self._connections, self._body_bytes = connections, body_bytes
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes the connection pool; deadlines are the caller's."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def bodies(self, instances: Sequence[dict[str, Any]]) -> Iterator[tuple[bytes, Sequence[dict[str, Any]]]]:
        """Request bodies with the instances in each, in order."""
        texts: list[bytes] = []
        size = first = 0
        for at, instance in enumerate(instances):
            text = orjson.dumps(instance)
            if texts and size + len(text) > self._body_bytes:
                yield _body(texts), instances[first:at]
                texts, size, first = [], 0, at
            texts.append(text)
            size += len(text) + 1
        yield _body(texts), instances[first:]

    async def rank(
        self, body: bytes, instances: Sequence[dict[str, Any]], request_id: str, seconds: float
    ) -> list[Offer]:
        """Ranks, for each instance, the items of its new interests and of its clusters.

        Args:
            body: see `bodies`.
            instances: those in the body.
            request_id: for the ranker's logs.
            seconds: that the answer is waited for; the ranker is told.

        Raises:
            NotLoaded: the ranker has loaded other releases only.
            Rejected: the ranker refuses the request.
            TimeoutError: the ranker did not get to it in time.
            Exception: the call failed, or its answer is malformed.
        """
        assert self._session is not None
        headers = {**_JSON, REQUEST_ID: request_id, TIMEOUT: f"{seconds * 1000:.3f}"}
        async with self._session.post(self._predict, data=body, headers=headers) as response:
            content = await response.read()
            if response.status == 409:
                raise NotLoaded(orjson.loads(content)["held"])
            if response.status == 504:
                raise TimeoutError
            if 400 <= response.status < 500:
                raise Rejected(response.status)
            response.raise_for_status()
        predictions = orjson.loads(content)["predictions"]
        if len(predictions) != len(instances):
            raise ValueError("another number of answers than of instances")
        return [_checked(prediction, instance) for prediction, instance in zip(predictions, instances, strict=True)]


def _body(texts: Sequence[bytes]) -> bytes:
    return b'{"instances":[' + b",".join(texts) + b"]}"


def _checked(prediction: Any, instance: dict[str, Any]) -> Offer:
    """The answer, once it is of the release and of the clusters of the request: an answer may be garbage."""
    if prediction["release"] != instance["release"]:
        raise ValueError("an answer of another release")
    items = prediction["items"]
    if set(items) != set(instance["clusters"]):
        raise ValueError("an answer about other clusters")
    shortlist = _ranking(prediction["shortlist"])
    if len(shortlist) > instance["shortlist"]:
        raise ValueError("a shortlist that is too long")
    return Offer(shortlist, {cluster: _ranking(ranked) for cluster, ranked in items.items()})


def _ranking(ranked: Any) -> list[tuple[str, float]]:
    found = [(str(item), float(score)) for item, score in ranked]
    if not all(math.isfinite(score) for _, score in found):
        raise ValueError("a score that is not finite")
    if any(later > earlier for (_, earlier), (_, later) in pairwise(found)):
        raise ValueError("items that are not best first")
    return found


def _base(host: str) -> str:
    return host if "://" in host else f"http://{host}"


def ranker_has_loaded(host: str, release: str) -> bool:
    """Whether the ranker has loaded a release; False where it does not answer. It blocks: call it in a thread."""
    try:
        with urllib.request.urlopen(f"{_base(host)}/releases", timeout=2) as response:
            return release in json.load(response)["held"]
    except (OSError, ValueError, KeyError):
        return False
