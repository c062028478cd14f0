"""Runtime of a release's own planner behind the protocol of vLLM, for a machine without it.

It knows completions of one token out of allowed ones and nothing else, and tells their log-probabilities.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from newfound.planner.remote.completion import TOKEN


class Completion(BaseModel):
    """The part of a completion request that is understood."""

    model: str
    prompt: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2048)]
    allowed_token_ids: Annotated[list[int], Field(min_length=1, max_length=100_000)]
    logprobs: Annotated[int, Field(ge=0, le=100_000)] = 0


class Runtime:
    """Planners of the current release, one question at a time.

    Args:
        root: folder or URL of all releases.
        cache: local folder for releases of a remote root.
    """

    def __init__(self, root: str, cache: Path) -> None:
        self.root, self.cache = root, cache
        self._release = self._name = ""
        self._planner: Any = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Takes up the current release's planner, if it is another one.

        Raises:
            NewfoundError: there is none, or it does not verify.
        """
        from newfound.clusters import Clusters
        from newfound.errors import ReleaseError
        from newfound.planner.planner import Planner
        from newfound.release.store import current, load, manifest_of

        now = current(self.root)
        if now is not None and now == self._release:
            return
        if now is not None and manifest_of(self.root, now).planner_name == self._name:
            self._release = now
            return
        release = load(self.root, now, self.cache)
        if (name := release.manifest.planner_name) is None:
            raise ReleaseError(f"{self.root}: release {release.id} has no planner")
        planner = Planner.load(release.path / "planner", Clusters.load(release.path / "clusters"))
        with self._lock:
            self._planner, self._name, self._release = planner, name, release.id

    @property
    def name(self) -> str:
        """Name of the planner that answers."""
        return self._name

    def answer(self, prompt: list[int], allowed: list[int], count: int) -> dict[int, float]:
        """The `count` allowed tokens of the highest log-probability with it, best first; only those that are interests.

        Raises:
            ValueError: a token of the prompt is not in the vocabulary.
        """
        import numpy as np

        with self._lock:
            codec, rows = self._planner.codec, self._planner.rows
            if max(prompt) >= len(self._planner.backbone.embedding):
                raise ValueError(f"token {max(prompt)} is not in the vocabulary")
            tokens = sorted({token for token in allowed if codec.cluster_of(token) is not None})
            if not tokens:
                return {}
            states = self._planner.read([tuple(prompt)])
            logits = states @ rows[[token - codec.first_token for token in tokens]].T
        values = logits[0] - logits.max()
        values = values - np.log(np.exp(values).sum())
        best = np.argsort(-values, kind="stable")[: max(count, 1)]
        return {tokens[at]: float(values[at]) for at in best}


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
        return {"object": "list", "data": [{"id": runtime.name, "object": "model"}]}

    @app.post("/v1/completions")
    async def completions(request: Completion) -> Any:
        if request.model != runtime.name:
            return JSONResponse({"error": {"message": f"the model is {runtime.name}"}}, status_code=404)
        try:
            found = await asyncio.to_thread(runtime.answer, request.prompt, request.allowed_token_ids, request.logprobs)
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        if not found:
            return JSONResponse({"error": {"message": "no allowed token is an interest"}}, status_code=400)
        told = {f"{TOKEN}{token}": value for token, value in found.items()}
        best, value = next(iter(told.items()))
        steps = {"tokens": [best], "token_logprobs": [value], "top_logprobs": [told]}
        answer = {"index": 0, "text": "", "logprobs": steps}
        return {"object": "text_completion", "model": runtime.name, "choices": [answer]}

    return app
