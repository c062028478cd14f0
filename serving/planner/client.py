"""Client of the live planner, over the OpenAI-compatible protocol of vLLM.

The same prompt and the same choices as in bulk inference (`newfound.planner.remote.planner`), on the explorer's own
kind of connection and without anything that would load a language model's libraries into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from newfound.planner.prompt import PromptCodec
from newfound.planner.remote.choice_search import ALTERNATIVES, ChoiceSearch
from newfound.recommend.decision import PlannerQuery

FILES: Final = ("planner/prompt.json", "planner/tokenizer.json")


class Prompts:
    """Completion requests of a release's planner, and the meaning of its answers.

    Args:
        folder: the planner's, of which `FILES` are needed.
        interface: the release's clusters.
        descriptions: theirs.
    """

    def __init__(self, folder: Path, interface: Sequence[str], descriptions: Sequence[str]) -> None:
        self._codec = PromptCodec.load(folder, descriptions)
        self._choices = self._codec.choices()
        self._interface = list(interface)
        self._at = {cluster: at for at, cluster in enumerate(interface)}
        # Choices end by themselves. An engine may spell one in smaller pieces than the codec does, at worst in bytes.
        self._longest = max(len(text.encode()) for text in self._choices) + 1

    def search(self, query: PlannerQuery, k: int) -> ChoiceSearch[str]:
        """Over the clusters that may be answered: those allowed, never the context's own."""
        allowed = self._interface if query.allowed is None else query.allowed
        texts = {cluster: self._choices[self._at[cluster]] for cluster in allowed if cluster not in query.context}
        return ChoiceSearch(texts, k)

    def body(self, query: PlannerQuery, choices: Sequence[str], model: str) -> bytes:
        """The completion request."""
        return orjson.dumps(
            {
                "model": model,
                "prompt": list(self._codec.tokens(tuple(self._at[cluster] for cluster in query.context))),
                "max_tokens": self._longest,
                "temperature": 0,
                "logprobs": ALTERNATIVES,
                "structured_outputs": {"choice": [self._choices[self._at[cluster]] for cluster in choices]},
            }
        )


class PlannerClient:
    """The engine.

    Args:
        url: what stands before `/v1/completions`.
        model: the name under which the engine serves the planner; None means the release's id.
        connections: most open at a time.
    """

    def __init__(self, url: str, model: str | None, connections: int) -> None:
        self._url, self._model, self._connections = f"{url.rstrip('/')}/v1/completions", model, connections
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

    async def answer(self, query: PlannerQuery, k: int, prompts: Prompts, release: str) -> list[str]:
        """The k next clusters, best first.

        Raises:
            Exception: whatever went wrong; an answer that is none of the choices is a ValueError.
        """
        assert self._session is not None
        search = prompts.search(query, k)
        while (choices := search.ask()) is not None:
            body = prompts.body(query, choices, self._model or release)
            async with self._session.post(
                self._url, data=body, headers={"Content-Type": "application/json"}
            ) as response:
                response.raise_for_status()
                search.told(orjson.loads(await response.read())["choices"][0])
        return list(search.answers)
