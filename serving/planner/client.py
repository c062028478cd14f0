"""Client of the live planner, over the OpenAI-compatible protocol of vLLM.

Requests and answers are those of bulk inference (`newfound.planner.remote.completion`), on the explorer's own kind of
connection and without anything that would load a language model's libraries into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import orjson

from newfound.planner.prompt import RECORD, TOKENIZER, PromptCodec
from newfound.planner.remote.completion import PATH, CompletionCodec
from newfound.recommend.decision import PlannerQuery

FILES: Final = (f"planner/{RECORD}", f"planner/{TOKENIZER}")


class Prompts:
    """Completion requests of a release's planner, and the meaning of its answers.

    Args:
        folder: the planner's, of which `FILES` are needed.
        planner: its name, by which engines serve it and no other.
        interface: the release's clusters.
        descriptions: theirs.
    """

    def __init__(self, folder: Path, planner: str, interface: Sequence[str], descriptions: Sequence[str]) -> None:
        self.planner = planner
        self.completions = CompletionCodec(PromptCodec.load(folder, descriptions))
        self.interface = list(interface)
        self._index = {cluster: place for place, cluster in enumerate(interface)}

    def request(self, query: PlannerQuery, model: str) -> dict[str, Any]:
        """The completion request."""
        return self.completions.request(model, self._places(query))

    def read(self, answer: Any, query: PlannerQuery) -> dict[str, float]:
        """The clusters that may follow, best first, with the natural logarithms of their probabilities.

        Raises:
            EngineError: see `CompletionCodec.read`.
        """
        values = self.completions.read(answer, self._places(query))
        order = np.argsort(-values, kind="stable").tolist()
        return {self.interface[at]: float(values[at]) for at in order if np.isfinite(values[at])}

    def _places(self, query: PlannerQuery) -> list[int]:
        return [self._index[cluster] for cluster in query.context]


class PlannerClient:
    """Posts queries to the engine.

    Args:
        url: what stands before `/v1/completions`.
        model: the name under which the engine serves the planner; None means its name in the release.
        connections: most open at a time.
    """

    def __init__(self, url: str, model: str | None, connections: int) -> None:
        self._url, self._model, self._connections = f"{url.rstrip('/')}{PATH}", model, connections
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes the connection pool; deadlines are the caller's."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def answer(self, query: PlannerQuery, k: int, prompts: Prompts) -> dict[str, float]:
        """The k next clusters, best first, with the natural logarithms of their probabilities.

        Raises:
            EngineError: the answer is no completion with the log-probabilities of all interests.
            Exception: the engine cannot be reached, refuses, or answers no JSON.
        """
        assert self._session is not None
        body = orjson.dumps(prompts.request(query, self._model or prompts.planner))
        async with self._session.post(self._url, data=body, headers={"Content-Type": "application/json"}) as response:
            response.raise_for_status()
            found = prompts.read(orjson.loads(await response.read()), query)
        return dict(islice(found.items(), k))
