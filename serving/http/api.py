"""Requests and responses of the explorer: pydantic models, and their forms in KServe's v1 and v2 protocols."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from newfound.events import Unit
from newfound.recommend.catalogue import UserHistory
from newfound.recommend.recommender import SEED_BITS
from newfound.recommend.slate import Slate
from newfound.types import Id
from serving.http.errors import Refused
from serving.settings import ServingConfig

Slots = Annotated[int, Field(ge=0, description="a number of slots")]
ShareOfSlots = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="a share of the slate")]

YEAR_10000 = 253_402_300_800_000
"""The first millisecond that is no date any more."""
SLATE = "slate"  # name of the v2 output
REQUEST = "request"  # name of the v2 input that carries whole requests as JSON
_TENSORS = {"user_id": "BYTES", "k": "INT", "novel": "INT|FP", "seed": "INT", "deadline_ms": "INT", REQUEST: "BYTES"}


class Strict(BaseModel):
    """Nothing is converted, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class HistoryEvent(Strict):
    """One event of a history that the client brings along."""

    item: Id
    engagement: Unit = 1.0
    positive: bool = True
    at: Annotated[int, Field(ge=0, lt=YEAR_10000, description="UTC milliseconds")] | None = None


class Recommend(Strict):
    """One request. The sizes that are not bounded here are bounded by the services' configuration."""

    user_id: Id | None = None
    k: Annotated[int, Field(ge=1)] | None = None
    novel: Slots | ShareOfSlots | None = Field(
        None, description="slots for new interests; by the user's appetite if absent"
    )
    exclude: list[Id] = []
    history: list[Id | HistoryEvent] | None = Field(
        None, description="oldest first; used without a user_id, and where the user's stored history cannot be had"
    )
    seed: Annotated[int, Field(ge=0, lt=2**SEED_BITS)] | None = None
    deadline_ms: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Recommend:
        if self.user_id is None and self.history is None:
            raise ValueError("give user_id, history, or both")
        return self

    def brought(self) -> UserHistory | None:
        """The history that came with the request."""
        if self.history is None:
            return None
        events = [HistoryEvent(item=one) if isinstance(one, str) else one for one in self.history]
        return UserHistory(
            tuple(event.item for event in events),
            tuple(event.engagement for event in events),
            tuple(event.positive for event in events),
            events[-1].at if events else None,
        )


class Predictions(BaseModel):
    """The v1 response."""

    predictions: list[Slate]


def request_model(config: ServingConfig) -> type[BaseModel]:
    """The v1 request, with the bounds of the configuration: a model with the one field `instances`."""
    bounded = create_model(
        "RecommendRequest",
        __base__=Recommend,
        k=(Annotated[int, Field(ge=1, le=config.k_at_most)] | None, None),
        novel=(Annotated[Slots, Field(le=config.k_at_most)] | ShareOfSlots | None, Recommend.model_fields["novel"]),
        exclude=(Annotated[list[Id], Field(max_length=config.exclude_at_most)], []),
        history=(
            Annotated[list[Id | HistoryEvent], Field(max_length=config.history_at_most)] | None,
            Recommend.model_fields["history"],
        ),
        deadline_ms=(Annotated[int, Field(ge=1, le=config.deadline_at_most_ms)] | None, None),
    )
    return create_model(
        "RecommendRequests",
        __base__=Strict,
        instances=(Annotated[list[bounded], Field(min_length=1, max_length=config.instances)], ...),  # type: ignore[valid-type]
    )


def parse(model: type[BaseModel], payload: Any) -> list[Any]:
    """The requests in a payload as KServe hands it over.

    Raises:
        Refused: the payload is no request, or a field does not fit; it names the first such field.
    """
    if isinstance(payload, InferRequest):
        payload = {"instances": _rows_of(payload)}
    elif not isinstance(payload, Mapping):
        raise Refused("expected a JSON object with the field instances", "body")
    try:
        return list(model.model_validate(payload).instances)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise Refused.of(error) from None


def answer(request: Any, slates: Sequence[dict[str, Any]], model_name: str) -> dict[str, Any] | InferResponse:
    """The response in the protocol of the request."""
    if not isinstance(request, InferRequest):
        return {"predictions": list(slates)}
    texts = [orjson.dumps(slate) for slate in slates]
    data = texts if request.from_grpc else [text.decode() for text in texts]
    output = InferOutput(SLATE, [len(slates)], "BYTES", data=data)
    return InferResponse(request.id or uuid.uuid4().hex, model_name, [output])


# --- v2 --------------------------------------------------------------------------------------------------------------


def _rows_of(request: InferRequest) -> list[dict[str, Any]]:
    """Tensors named after the fields, one element a request; `request` holds whole requests as JSON objects."""
    columns: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        if tensor.name not in _TENSORS:
            raise Refused(f"unknown tensor; expected one of {', '.join(_TENSORS)}", "inputs.name")
        if tensor.name in columns:
            raise Refused("the tensor is there twice", f"inputs.{tensor.name}")
        columns[tensor.name] = _column_of(tensor)
    if not columns:
        raise Refused("expected at least one tensor", "inputs")
    size = len(next(iter(columns.values())))
    for name, values in columns.items():
        if len(values) != size:
            raise Refused("tensors differ in length", f"inputs.{name}")
    rows: list[dict[str, Any]] = [_whole(text) for text in columns.pop(REQUEST, [])] or [{} for _ in range(size)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def whole_requests(request: InferRequest) -> list[dict[str, Any]]:
    """The requests that the one tensor `request` carries as JSON objects."""
    if len(request.inputs) != 1 or request.inputs[0].name != REQUEST:
        raise Refused(f"expected the one tensor {REQUEST}", "inputs.name")
    return [_whole(text) for text in _column_of(request.inputs[0])]


def _whole(text: Any) -> dict[str, Any]:
    try:
        row = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        raise Refused("an element is not JSON", f"inputs.{REQUEST}") from None
    if not isinstance(row, dict):
        raise Refused("an element is no JSON object", f"inputs.{REQUEST}")
    return row


def _column_of(tensor: InferInput) -> list[Any]:
    """A tensor's elements: shape [n] or [n, 1], text decoded."""
    field = f"inputs.{tensor.name}"
    expected = _TENSORS[tensor.name]
    if not tensor.datatype.startswith(("U" + expected, *expected.split("|"))):
        raise Refused(f"datatype does not fit; expected {expected}", f"{field}.datatype")
    try:
        data = tensor.as_numpy().tolist() if tensor._raw_data is not None else list(tensor.data or [])
    except Exception:  # whatever a decoder says of bytes that a client sent, it is about the client's bytes
        raise Refused("the raw contents do not fit datatype and shape", field) from None
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] != len(data):
        raise Refused("shape does not fit the data; expected [n]", f"{field}.shape")
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        raise Refused("text is not UTF-8", field) from None
