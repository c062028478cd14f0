"""The same planner behind an OpenAI-compatible engine such as vLLM: same prompt, same choices.

The engine decodes greedily along the choices; what it says about its alternatives makes a best-first search of that
(`newfound.planner.remote.choice_search`). The log-probabilities that it tells on the way are too high, by as much as
the model would have said what is no choice; they bound the true ones. So descriptions are scored in full, likeliest
first, until no bound exceeds the k-th score. Prompts go as token ids, so that both engines read the very same prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import numpy as np

from newfound.clusters import Clusters
from newfound.errors import NewfoundError
from newfound.planner.decoding.search import Decoded
from newfound.planner.prompt import PromptCodec, Tokens
from newfound.planner.remote.choice_search import ALTERNATIVES, ChoiceSearch
from newfound.types import Bools

_T = TypeVar("_T")

SPARE = 4  # descriptions that are scored in full beyond those that are needed


class EngineError(NewfoundError):
    """The engine did not answer as an OpenAI-compatible completion engine with structured output does."""


class Answer(NamedTuple):
    """One next cluster, by index, and the natural logarithm of its description's probability."""

    cluster: int
    score: float


class CompletionClient:
    """Asks the engine for next clusters.

    Args:
        codec: the planner's prompt; of the very planner that the engine serves.
        model: the name under which the engine serves it.
        client: where to; its base URL ends before `/v1`, its timeout and its limits hold.
    """

    def __init__(self, codec: PromptCodec, model: str, client: httpx.AsyncClient) -> None:
        self.codec, self.model, self.client = codec, model, client
        self._choices = codec.choices()
        # An engine may spell a choice in more tokens than the tokenizer would, at most one a byte; then comes the end.
        self._longest = max(len(choice.encode()) for choice in self._choices) + 1

    async def next_clusters(
        self, context: Sequence[int], k: int, allowed: Sequence[int] | None = None, hint: int | None = None
    ) -> list[Answer]:
        """The k next clusters of a context, best first.

        Args:
            context: cluster indices, oldest first.
            allowed: clusters that may be answered; None: all but the context's own.
            hint: the context's most frequent recent successor.

        Raises:
            EngineError: the answer is none of the choices, or no completion with log-probabilities.
            httpx.HTTPError: the engine cannot be reached in time, or refuses.
        """
        left = [c for c in range(len(self.codec)) if c not in context] if allowed is None else list(allowed)
        prompt = self.codec.tokens(tuple(context), hint)
        search = ChoiceSearch({cluster: self._choices[cluster] for cluster in left}, k + SPARE)
        answers: list[Answer] = []
        wanted = min(k, len(left))
        while len(answers) < wanted or (answers and answers[wanted - 1].score < search.bound):
            await self._narrow(search, prompt)
            fresh = list(search.answers)[len(answers) :]
            answers += map(Answer, fresh, await self._score(prompt, fresh))
            answers.sort(key=lambda answer: (-answer.score, answer.cluster))
            search.k = len(answers) + SPARE
        return answers[:k]

    async def _narrow(self, search: ChoiceSearch[int], prompt: Tokens) -> None:
        """Asks until the search has what it was asked for."""
        while (choices := search.ask()) is not None:
            asked = {
                "prompt": list(prompt),
                "max_tokens": self._longest,
                "logprobs": ALTERNATIVES,
                "structured_outputs": {"choice": [self._choices[c] for c in choices]},
            }
            found = await self._complete(asked)
            try:
                search.told(found["choices"][0])
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise EngineError(f"planner engine: {error}; expected one of the choices it was given") from None

    async def _score(self, prompt: Tokens, clusters: Sequence[int]) -> list[float]:
        """True log-probabilities of whole descriptions with their end: the engine reads them back as prompts."""
        ends = [(*self.codec.answers[cluster], self.codec.end) for cluster in clusters]
        whole = [[*prompt, *end] for end in ends]
        found = await self._complete({"prompt": whole, "max_tokens": 1, "logprobs": 0, "echo": True})
        try:
            read = {choice["index"]: choice["logprobs"]["token_logprobs"] for choice in found["choices"]}
            return [float(sum(read[at][len(prompt) : len(prompt) + len(end)])) for at, end in enumerate(ends)]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"planner engine: {error!r}; expected the prompts' log-probabilities") from None

    async def _complete(self, asked: Mapping[str, Any]) -> Any:
        response = await self.client.post("/v1/completions", json={"model": self.model, "temperature": 0, **asked})
        response.raise_for_status()
        try:
            return response.json()
        except ValueError:
            raise EngineError("planner engine: expected a completion as JSON") from None


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
        self.codec, self.nodes = codec, list(nodes)
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
        """What the answers may depend on beside their inputs; batches are the engine's own affair.

        Raises:
            EngineError: the engine cannot be reached.
        """

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(base_url=self.url, timeout=self._timeout, transport=self._transport) as http:
                return await http.get("/version")

        response = self._run(ask())
        found = response.json().get("version", "unknown") if response.is_success else "unknown"
        return {"engine": "openai", "server": str(found), "model": self.model, "requests_at_once": self.concurrency}

    def decode(
        self,
        contexts: Sequence[tuple[str, ...]],
        k: int,
        allowed: Bools | None = None,
        hints: Sequence[str | None] | None = None,
    ) -> Decoded:
        """As `Planner.decode`, with the engine's k best answers in the place of the exact ones.

        Raises:
            EngineError: the engine cannot be reached in time, refuses, or answers something else.
        """
        found = self._run(self._decode(contexts, k, allowed, hints))
        scores = np.full((len(contexts), len(self)), -np.inf, dtype=np.float32)
        for row, answers in enumerate(found):
            for answer in answers:
                scores[row, answer.cluster] = answer.score
        return Decoded(scores, np.isfinite(scores))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run(work)
        except httpx.HTTPStatusError as error:
            raise EngineError(f"{self.url}: answered {error.response.status_code}; expected a completion") from error
        except httpx.HTTPError as error:
            raise EngineError(f"{self.url}: not reachable in time ({type(error).__name__})") from error

    async def _decode(
        self,
        contexts: Sequence[tuple[str, ...]],
        k: int,
        allowed: Bools | None,
        hints: Sequence[str | None] | None,
    ) -> list[list[Answer]]:
        gate = asyncio.Semaphore(self.concurrency)
        limits = httpx.Limits(max_connections=self.concurrency)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=self._timeout, limits=limits, transport=self._transport
        ) as http:
            client = CompletionClient(self.codec, self.model, http)

            async def one(row: int) -> list[Answer]:
                hint = hints[row] if hints is not None else None
                async with gate:
                    return await client.next_clusters(
                        [self.index[c] for c in contexts[row]],
                        k,
                        None if allowed is None else np.flatnonzero(allowed[row]).tolist(),
                        None if hint is None else self.index[hint],
                    )

            return list(await asyncio.gather(*(one(row) for row in range(len(contexts)))))
