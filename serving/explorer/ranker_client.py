"""Client of the ranker: KServe's v1 protocol over kept-alive connections."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from newfound.recommend.slate import Ranked

_JSON = {"Content-Type": "application/json"}


class NotLoaded(Exception):
    """The ranker has not loaded the release of the request.

    Args:
        loaded: releases that it has loaded.
    """

    def __init__(self, loaded: Sequence[str]) -> None:
        self.loaded = tuple(loaded)
        super().__init__(", ".join(loaded))


class RankerClient:
    """The predictor's endpoint. KServe's own client, on httpx, takes four times the processor time for one call.

    Args:
        host: host and port, as KServe's controller passes them.
        model: the model's name.
        connections: most open at a time.
    """

    def __init__(self, host: str, model: str, connections: int) -> None:
        self._predict = f"{_base(host)}/v1/models/{model}:predict"
        self._connections = connections
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

    async def rank(self, instances: Sequence[dict[str, Any]], request_id: str) -> list[Ranked]:
        """Ranks, for each instance, the items of its clusters.

        Raises:
            NotLoaded: the ranker has loaded other releases only.
            Exception: the call failed, or its answer is malformed.
        """
        assert self._session is not None
        body = orjson.dumps({"instances": instances})
        headers = {**_JSON, "x-request-id": request_id}
        async with self._session.post(self._predict, data=body, headers=headers) as response:
            answer = orjson.loads(await response.read())
            if response.status == 409:
                raise NotLoaded(answer["held"])
            response.raise_for_status()
        predictions = answer["predictions"]
        if len(predictions) != len(instances):
            raise ValueError("another number of answers than of instances")
        return [_checked(prediction, instance) for prediction, instance in zip(predictions, instances, strict=True)]


def _checked(prediction: Any, instance: dict[str, Any]) -> Ranked:
    """The answer, once it is of the release and of the clusters of the request: an answer may be garbage."""
    if prediction["release"] != instance["release"]:
        raise ValueError("an answer of another release")
    items = prediction["items"]
    if set(items) != set(instance["clusters"]):
        raise ValueError("an answer about other clusters")
    return {cluster: [(str(item), float(score)) for item, score in ranked] for cluster, ranked in items.items()}


def _base(host: str) -> str:
    return host if "://" in host else f"http://{host}"


def ranker_has_loaded(host: str, release: str) -> bool:
    """Whether the ranker has loaded a release; False where it does not answer. It blocks: call it in a thread."""
    try:
        with urllib.request.urlopen(f"{_base(host)}/releases", timeout=2) as response:
            return release in json.load(response)["held"]
    except (OSError, ValueError, KeyError):
        return False
