"""The ranker as a KServe model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi.responses import JSONResponse
from kserve import InferRequest, Model
from kserve.errors import ModelNotReady
from pydantic import BaseModel, Field, ValidationError, create_model

from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.query import JointQuery
from serving.deadline import Deadline
from serving.http.api import Id, Strict, answer, whole_requests
from serving.http.context import current
from serving.http.errors import Refused
from serving.metrics import STAGE_SECONDS
from serving.ranker.loaded_release import LoadedRanker
from serving.ranker.micro_batch import MicroBatcher
from serving.releases import Releases
from serving.settings import ServingConfig

EXCLUDED_AT_MOST = 100_000
Offset = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]


class Rank(Strict):
    """One request: the best items of all new interests together, and of some clusters on their own."""

    history: list[Id] = Field(description="item ids, oldest first")
    clusters: Annotated[list[Id], Field(max_length=256)] = Field([], description="whose own best items are wanted")
    k: Annotated[int, Field(ge=1, le=1000)] | list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        10, description="items wanted of every cluster, or of each"
    )
    exclude: list[Id] = []
    offsets: Annotated[dict[Id, Offset], Field(max_length=4096)] = Field(
        {}, description="interests that are new, and what is added to the utility of their items"
    )
    shortlist: Annotated[int, Field(ge=0, le=1000)] = Field(0, description="best items of all new interests together")
    planner: bool = Field(True, description="whether the offsets hold the planner's term")
    release: Id | None = Field(None, description="None: the current one")


class Ranked(BaseModel):
    """One answer: items with their scores, best first."""

    release: str
    shortlist: list[tuple[str, float]] = Field(description="of all new interests, by joint utility")
    items: dict[str, list[tuple[str, float]]] = Field(description="by cluster")


class RankedAll(BaseModel):
    """The v1 response."""

    predictions: list[Ranked]


class ReleaseNotLoaded(Refused):
    """The release of the request is not loaded; the answer says which are."""

    def __init__(self, loaded: list[str]) -> None:
        super().__init__("the release is not loaded here", "instances.release", 409)
        self.loaded = loaded

    def body(self) -> dict[str, Any]:
        """The message to the client."""
        return {**super().body(), "held": self.loaded}


def request_model(config: ServingConfig) -> type[BaseModel]:
    """The v1 request, with the bounds of the configuration."""
    bounded = create_model(
        "RankRequest",
        __base__=Rank,
        history=(Annotated[list[Id], Field(max_length=config.history_at_most)], ...),
        exclude=(Annotated[list[Id], Field(max_length=EXCLUDED_AT_MOST)], []),
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
        releases: those loaded; `build_ranker` builds each.
        config: bounds.
    """

    def __init__(self, name: str, releases: Releases[LoadedRanker], config: ServingConfig) -> None:
        super().__init__(name)
        self.releases, self.config = releases, config
        self.requests = request_model(config)
        self.ready = True  # as far as KServe's registry is concerned; `healthy` tells the truth
        self.micro_batcher = MicroBatcher()

    async def healthy(self) -> bool:
        """Whether a release is loaded, and the takedown list was read."""
        return self.releases.get() is not None

    async def preprocess(
        self, payload: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, list[Rank], Deadline]:
        """Validates, and takes capacity for each instance."""
        body = {"instances": whole_requests(payload)} if isinstance(payload, InferRequest) else payload
        if not isinstance(body, Mapping):
            raise Refused("expected a JSON object with the field instances", "body")
        try:
            requests = list(self.requests.model_validate(body).instances)  # type: ignore[attr-defined]
        except ValidationError as error:
            raise Refused.of(error) from None
        if self.releases.get() is None:
            raise ModelNotReady(self.name)
        context = current()
        context.take(len(requests))
        limit = self.config.deadline_at_most_ms
        patience = limit if context.timeout_s is None else min(context.timeout_s * 1000, limit)
        return payload, requests, Deadline(patience, context.arrived)

    async def predict(self, payload: Any, headers: Mapping[str, str] | None = None) -> tuple[Any, list[dict[str, Any]]]:
        """Ranks."""
        request, wanted, deadline = payload
        began = time.perf_counter()
        queries = [self._query(one) for one in wanted]
        found = await asyncio.gather(
            *(self.micro_batcher.rank(ranker, query, deadline) for _, ranker, query in queries)
        )
        STAGE_SECONDS.labels("rank").observe(time.perf_counter() - began)
        return request, [
            {"release": release, "shortlist": answer.best, "items": answer.clusters}
            for (release, _, _), answer in zip(queries, found, strict=True)
        ]

    async def postprocess(self, result: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Answers in the protocol of the request."""
        request, answers = result
        return answer(request, answers, self.name)

    def _query(self, one: Rank) -> tuple[str, JointRanker, JointQuery]:
        """The release of a request, its ranker, and the ranker's query."""
        release = one.release or self.releases.active
        loaded = self.releases.loaded.get(release or "")
        if loaded is None or release is None:
            raise ReleaseNotLoaded(list(self.releases.loaded))
        if not one.clusters and not one.shortlist:
            raise Refused("expected clusters or a shortlist", "instances")
        sizes = one.k if isinstance(one.k, list) else [one.k] * len(one.clusters)
        if len(sizes) != len(one.clusters):
            raise Refused("expected a number for each cluster", "instances.k")
        slices = loaded.ranker.ranker.slices
        if any(cluster not in slices for cluster in one.clusters):
            raise Refused("the release has no such cluster", "instances.clusters")
        if any(cluster not in loaded.interface for cluster in one.offsets):
            raise Refused("the release has no such interest", "instances.offsets")
        hidden = [*one.exclude, *loaded.taken_down(self.releases.takedown, [*one.clusters, *one.offsets])]
        query = JointQuery(one.history, one.offsets, one.shortlist, one.clusters, sizes, hidden, one.planner)
        return release, loaded.ranker, query

    async def releases_loaded(self) -> JSONResponse:
        """`GET /releases`."""
        return JSONResponse({"active": self.releases.active, "held": list(self.releases.loaded)})
