"""The planner behind an OpenAI-compatible engine such as vLLM, with the interface of the one in this process.

One request a context tells the log-probabilities of all clusters, so nothing is searched and nothing is estimated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from newfound.clusters import Clusters
from newfound.planner.prompt import PromptCodec
from newfound.planner.remote.completion import PATH, CompletionCodec, EngineError
from newfound.types import Bools, Context, Floats

_T = TypeVar("_T")


class RemotePlanner:
    """The client with the planner's interface, for bulk work.

    Args:
        codec: the planner's prompt.
        nodes: interface clusters, in the codec's order.
        url: of the engine, without `/v1`.
        model: the name under which the engine serves the planner.
        concurrency: requests in flight.
        timeout: seconds a request.
        transport: instead of the network.
    """

    def __init__(
        self,
        codec: PromptCodec,
        nodes: Sequence[str],
        url: str,
        model: str,
        *,
        concurrency: int = 32,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.completions, self.nodes = CompletionCodec(codec), list(nodes)
        self.index = {node: place for place, node in enumerate(self.nodes)}
        self.url, self.model, self.concurrency = url, model, concurrency
        self._timeout, self._transport = timeout, transport

    @classmethod
    def load(cls, path: str | Path, clusters: Clusters, url: str, model: str) -> RemotePlanner:
        """The planner folder's prompt, for an engine that serves its weights.

        Raises:
            DataError: the folder is no planner.
            VocabularyError: the planner was made for other clusters.
        """
        return cls(PromptCodec.load(Path(path), clusters.descriptions), clusters.interface, url, model)

    def __len__(self) -> int:
        return len(self.nodes)

    def describe(self) -> dict[str, str | int]:
        """Engine, server version, model and concurrency, on which answers may depend; batches are its own affair.

        Raises:
            EngineError: the engine cannot be reached.
        """

        async def get() -> httpx.Response:
            async with self._client() as client:
                return await client.get("/version")

        response = self._run(get())
        found = response.json().get("version", "unknown") if response.is_success else "unknown"
        return {"engine": "openai", "server": str(found), "model": self.model, "requests_at_once": self.concurrency}

    def has_read(self, contexts: Sequence[Context]) -> Bools:
        """[B], as `Planner.has_read`: nothing is kept here."""
        return np.zeros(len(contexts), dtype=bool)

    def log_probs(self, contexts: Sequence[Context], *, anew: bool = False) -> Floats:
        """As `Planner.log_probs`; the engine is asked each time.

        Raises:
            EngineError: the engine cannot be reached in time, refuses, or answers something else.
        """
        if not contexts:
            return np.zeros((0, len(self)), dtype=np.float32)
        return np.stack(self._run(self._ask(contexts)))

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=self.concurrency)
        return httpx.AsyncClient(base_url=self.url, timeout=self._timeout, limits=limits, transport=self._transport)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run(work)
        except httpx.HTTPStatusError as error:
            raise EngineError(f"{self.url}: answered {error.response.status_code}; expected a completion") from error
        except httpx.HTTPError as error:
            raise EngineError(f"{self.url}: not reachable in time ({type(error).__name__})") from error

    async def _ask(self, contexts: Sequence[Context]) -> list[Floats]:
        in_flight = asyncio.Semaphore(self.concurrency)
        async with self._client() as http:

            async def one(context: Context) -> Floats:
                places = [self.index[cluster] for cluster in context]
                async with in_flight:
                    response = await http.post(PATH, json=self.completions.request(self.model, places))
                response.raise_for_status()
                try:
                    answer = response.json()
                except ValueError:
                    raise EngineError("planner engine: expected a completion as JSON") from None
                return self.completions.read(answer, places)

            return list(await asyncio.gather(*(one(context) for context in contexts)))
