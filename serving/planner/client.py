"""Client of the live planner, over the OpenAI-compatible protocol of vLLM.

Requests and answers are those of bulk inference (`newfound.planner.remote.completion`), on the explorer's own kind of
connection and without anything that would load a language model's libraries into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from newfound.planner.prompt import RECORD, TOKENIZER, PromptCodec
from newfound.planner.remote.choice_search import ChoiceSearch
from newfound.planner.remote.completion import PATH, CompletionCodec
from newfound.recommend.decision import PlannerQuery

FILES: Final = (f"planner/{RECORD}", f"planner/{TOKENIZER}")


class Prompts:
    """Completion requests of a release's planner, and the meaning of its answers.

    Args:
        folder: the planner's, of which `FILES` are needed.
        interface: the release's clusters.
        descriptions: theirs.
    """

    def __init__(self, folder: Path, interface: Sequence[str], descriptions: Sequence[str]) -> None:
        self.completions = CompletionCodec(PromptCodec.load(folder, descriptions))
        self.interface = list(interface)
        self._index = {cluster: place for place, cluster in enumerate(interface)}

    def search(self, query: PlannerQuery, k: int) -> ChoiceSearch[int]:
        """Over the clusters that may be answered: never the context's own."""
        return self.completions.search((self._index[c] for c in self.interface if c not in query.context), k)

    def request(self, query: PlannerQuery, choices: Sequence[int], model: str) -> dict[str, Any]:
        """The completion request of one step of the search."""
        prompt = self.completions.prompt.tokens(tuple(self._index[cluster] for cluster in query.context))
        return self.completions.choice_request(model, prompt, choices)


class PlannerClient:
    """Posts queries to the engine.

    Args:
        url: what stands before `/v1/completions`.
        model: the name under which the engine serves the planner; None means the release's id.
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

    async def answer(self, query: PlannerQuery, k: int, prompts: Prompts, release: str) -> dict[str, float]:
        """The k next clusters, best first, with the natural logarithms of their probabilities.

        Raises:
            EngineError: the answer is none of the choices, or no completion with log-probabilities.
            Exception: the engine cannot be reached, refuses, or answers no JSON.
        """
        assert self._session is not None
        search = prompts.search(query, k)
        while (choices := search.next_query()) is not None:
            body = orjson.dumps(prompts.request(query, choices, self._model or release))
            async with self._session.post(
                self._url, data=body, headers={"Content-Type": "application/json"}
            ) as response:
                response.raise_for_status()
                prompts.completions.read_choice(orjson.loads(await response.read()), search)
        return {prompts.interface[place]: value for place, value in search.answers.items()}
