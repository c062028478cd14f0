"""The ranker as a KServe model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi.responses import JSONResponse
from kserve import InferRequest, Model
from pydantic import BaseModel, Field, ValidationError, create_model

from newfound.ranker import Ranker
from newfound.ranker.index import ClusterQuery
from newfound.release.takedown import Takedown
from serving.http.api import Id, Strict, answer, whole_requests
from serving.http.errors import Refused
from serving.metrics import STAGE_SECONDS
from serving.ranker.micro_batch import MicroBatcher
from serving.releases import Releases
from serving.settings import ServingConfig

PARTS = ("ranker",)


class Rank(Strict):
    """One request: the best items of each cluster after a history."""

    history: list[Id] = Field(description="item ids, oldest first")
    clusters: Annotated[list[Id], Field(min_length=1, max_length=256)]
    k: Annotated[int, Field(ge=1, le=1000)] | list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        10, description="items wanted of every cluster, or of each"
    )
    exclude: list[Id] = []
    release: Id | None = Field(None, description="None: the current one")


class Ranked(BaseModel):
    """One answer: items with their scores by cluster, best first."""

    release: str
    items: dict[str, list[tuple[str, float]]]


class RankedAll(BaseModel):
    """The v1 response."""

    predictions: list[Ranked]


class ReleaseNotHeld(Refused):
    """The release asked for is not held here; the answer says which are."""

    def __init__(self, held: list[str]) -> None:
        super().__init__("the release is not held here", "instances.release", 409)
        self.held = held

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {**super().body(), "held": self.held}


def request_model(config: ServingConfig) -> type[BaseModel]:
    """The v1 request, with the bounds of the configuration."""
    bounded = create_model(
        "RankRequest",
        __base__=Rank,
        history=(Annotated[list[Id], Field(max_length=config.history_at_most)], ...),
        exclude=(Annotated[list[Id], Field(max_length=2 * config.exclude_at_most + 1000)], []),
    )
    return create_model(
        "RankRequests",
        __base__=Strict,
        instances=(Annotated[list[bounded], Field(min_length=1, max_length=config.instances)], ...),  # type: ignore[valid-type]
    )


class RankerModel(Model):
    """Ranks items within clusters, for the explorer and for anyone else.

    Args:
        name: the model's name.
        releases: the releases held; `build_ranker` makes what they hold.
        config: bounds.
    """

    def __init__(self, name: str, releases: Releases[Ranker], config: ServingConfig) -> None:
        super().__init__(name)
        self.releases, self.config = releases, config
        self.requests = request_model(config)
        self.ready = True  # as far as KServe's registry is concerned; `healthy` tells the truth
        self.turns = MicroBatcher()
        self._hidden: dict[str, list[str]] = {}
        releases.on_takedown = self._take_down

    async def healthy(self) -> bool:
        """Whether a release is loaded."""
        return self.releases.get() is not None

    async def preprocess(self, payload: Any, headers: Mapping[str, str] | None = None) -> tuple[Any, list[Rank]]:
        """Validates."""
        body = {"instances": whole_requests(payload)} if isinstance(payload, InferRequest) else payload
        if not isinstance(body, Mapping):
            raise Refused("expected a JSON object with the field instances", "body")
        try:
            return payload, list(self.requests.model_validate(body).instances)  # type: ignore[attr-defined]
        except ValidationError as error:
            raise Refused.of(error) from None

    async def predict(self, payload: Any, headers: Mapping[str, str] | None = None) -> tuple[Any, list[dict[str, Any]]]:
        """Ranks."""
        request, wanted = payload
        began = time.perf_counter()
        asked = [self._order(one) for one in wanted]
        found = await asyncio.gather(*(self.turns.rank(ranker, order) for _, ranker, order in asked))
        STAGE_SECONDS.labels("rank").observe(time.perf_counter() - began)
        return request, [
            {"release": release, "items": dict(zip(order.clusters, items, strict=True))}
            for (release, _, order), items in zip(asked, found, strict=True)
        ]

    async def postprocess(self, result: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Answers in the protocol of the request."""
        request, answers = result
        return answer(request, answers, self.name)

    def _order(self, one: Rank) -> tuple[str, Ranker, ClusterQuery]:
        """The release that is asked, its ranker, and what is to be ranked."""
        release = one.release or self.releases.active
        ranker = self.releases.held.get(release or "")
        if ranker is None or release is None:
            raise ReleaseNotHeld(list(self.releases.held))
        sizes = one.k if isinstance(one.k, list) else [one.k] * len(one.clusters)
        if len(sizes) != len(one.clusters):
            raise Refused("expected a number for each cluster", "instances.k")
        unknown = next((cluster for cluster in one.clusters if cluster not in ranker.slices), None)
        if unknown is not None:
            raise Refused("the release has no such cluster", "instances.clusters")
        down = self.releases.takedown
        hidden = [*one.exclude, *self._hidden_items(ranker, release)] if down.items or down.clusters else one.exclude
        return release, ranker, ClusterQuery(one.history, one.clusters, sizes, hidden)

    def _take_down(self, takedown: Takedown) -> None:
        self._hidden = {}

    def _hidden_items(self, ranker: Ranker, release: str) -> list[str]:
        """What was taken down, as items of this release."""
        if release not in self._hidden:
            down = self.releases.takedown
            spans = [ranker.slices[node] for node in sorted(down.clusters) if node in ranker.slices]
            below = {item for start, stop in spans for item in ranker.items[start:stop]}
            self._hidden = {release: sorted(below | down.items)}
        return self._hidden[release]

    async def releases_held(self) -> JSONResponse:
        """`GET /releases`."""
        return JSONResponse({"active": self.releases.active, "held": list(self.releases.held)})


def build_ranker(folder: Path, release: str) -> Ranker:
    """Loads a release's ranker and runs it once, so that the first request does not pay for it."""
    ranker = Ranker.load(folder / "ranker")
    first = next(iter(ranker.slices))
    for length in (1, 50, 200):
        ranker.top_k_per_cluster([ClusterQuery(ranker.items[:length], [first], [1])])
    return ranker
