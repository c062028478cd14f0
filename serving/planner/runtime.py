"""Runtime of a release's own planner behind the protocol of vLLM, for a machine without it.

It knows completions with structured choices and nothing else, and answers them with the exact decoder: a description is
one token to it, and the next best ones are the alternatives that it tells of.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

END = "<end>"


class Choices(BaseModel):
    """Structured output as vLLM takes it."""

    choice: Annotated[list[str], Field(min_length=1, max_length=100_000)]


class Completion(BaseModel):
    """The part of a completion request that is understood."""

    model: str
    prompt: Annotated[list[int], Field(min_length=1, max_length=2048)]
    structured_outputs: Choices
    logprobs: Annotated[int, Field(ge=0, le=100)] = 0


class Runtime:
    """Planners of the current release, one question at a time.

    Args:
        root: folder or URL of all releases.
        cache: local folder for releases of a remote root.
    """

    def __init__(self, root: str, cache: Path) -> None:
        self.root, self.cache = root, cache
        self._release = ""
        self._planner: Any = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Takes up the current release's planner.

        Raises:
            NewfoundError: there is none, or it does not verify.
        """
        from newfound.clusters import Clusters
        from newfound.planner.planner import Planner
        from newfound.release.store import current, load

        if current(self.root) == self._release:
            return
        release = load(self.root, None, self.cache)
        planner = Planner.load(release.path / "planner", Clusters.load(release.path / "clusters"))
        with self._lock:
            self._planner, self._release = planner, release.id

    @property
    def release(self) -> str:
        """Id of the release whose planner answers."""
        return self._release

    def answer(self, prompt: list[int], choices: list[str], count: int) -> dict[str, float]:
        """The `count` choices of the highest log-probability with it, best first; only those that are descriptions."""
        import numpy as np

        with self._lock:
            codec = self._planner.codec
            places = {text.strip(): at for at, text in enumerate(codec.choices())}
            allowed = np.zeros((1, len(codec)), dtype=bool)
            for text in choices:
                if text.strip() in places:
                    allowed[0, places[text.strip()]] = True
            count = min(count, int(allowed.sum()))
            if not count:
                return {}
            found = self._planner.decoder.decode([_segments(codec, tuple(prompt))], count, allowed)
            best, values = found.top(count)
        by_place = {places[text.strip()]: text for text in choices if text.strip() in places}
        return {by_place[at]: value for at, value in zip(best[0].tolist(), values[0].tolist(), strict=True)}


def _segments(codec: Any, prompt: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The prompt as the decoder takes it: opening, then one piece an interest."""
    opening = codec.opening
    if prompt[: len(opening)] != opening:
        return [prompt]
    pieces, rest, end = [opening], prompt[len(opening) :], codec.separator
    start = 0
    for at in range(len(rest) - len(end) + 1):
        if rest[at : at + len(end)] == end:
            pieces.append(rest[start : at + len(end)])
            start = at + len(end)
    return [*pieces, rest[start:]] if start < len(rest) else pieces


def create_app(runtime: Runtime, watch_s: float = 2.0) -> FastAPI:
    """The HTTP side."""

    async def follow() -> None:
        while True:
            await asyncio.sleep(watch_s)
            with contextlib.suppress(Exception):  # the release that serves goes on serving
                await asyncio.to_thread(runtime.load)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(runtime.load)
        task = asyncio.create_task(follow())
        yield
        task.cancel()

    app = FastAPI(title="newfound planner", lifespan=life)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": runtime.release, "object": "model"}]}

    @app.post("/v1/completions")
    async def completions(request: Completion) -> Any:
        if request.model != runtime.release:
            return JSONResponse({"error": {"message": f"the model is {runtime.release}"}}, status_code=404)
        choices, count = request.structured_outputs.choice, max(request.logprobs, 1)
        found = await asyncio.to_thread(runtime.answer, request.prompt, choices, count)
        if not found:
            return JSONResponse({"error": {"message": "none of the choices is a description"}}, status_code=400)
        answer = {"index": 0, "text": next(iter(found)), "logprobs": steps(found)}
        return {"object": "text_completion", "model": runtime.release, "choices": [answer]}

    return app


def steps(found: Mapping[str, float]) -> dict[str, list[Any]]:
    """How the best of some choices was said, and what else could have been: each choice is one token.

    A choice with which others begin could go on, and those are then told of at its end.
    """
    best = next(iter(found))
    onward = {
        text[len(best) :]: value - found[best]
        for text, value in found.items()
        if text != best and text.startswith(best)
    }
    end = {"tokens": [END], "token_logprobs": [0.0], "top_logprobs": [{END: 0.0, **onward}]}
    first = {"tokens": [best], "token_logprobs": [found[best]], "top_logprobs": [dict(found)]}
    return {name: [*first[name], *end[name]] for name in first}
