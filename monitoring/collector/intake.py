"""Checks of requests: an HTTP request becomes a batch of events, or a refusal that names event and field.

A batch with a bad event is read once more, event by event, so that the refusal names every event at fault and senders
can send the rest again. Of each event the first few problems are told, so that a small body makes no large refusal.
The store is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from monitoring.settings import MonitoringConfig
from monitoring.store.batches import Batch
from monitoring.store.rows import Inference, Stored
from newfound.events import (
    BATCH,
    FEEDBACK_TYPE,
    RECOMMENDATION_TYPE,
    STRUCTURED,
    FeedbackEvent,
    Id,
    RecommendationEvent,
    UtcTime,
    user_key,
)

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"
_SHOWN_PROBLEMS: Final = 20
_OF_EVENT: Final = 5  # problems of one event that are told


class Refused(Exception):
    """A request of which nothing is stored.

    Args:
        status: HTTP status, 4xx.
        problems: what is wrong and where: `event` (index in a batch), `field`, `problem`.
    """

    def __init__(self, status: int, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(problems[0]["problem"])
        self.status, self.problems = status, list(problems[:_SHOWN_PROBLEMS])
        self.events = sorted({problem["event"] for problem in problems if "event" in problem})

    @property
    def body(self) -> dict[str, Any]:
        """The answer: the first problems, and the indices of all events at fault."""
        return {"detail": self.problems, "events": self.events}


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)  # extension attributes are welcome, and not kept

    specversion: Literal["1.0"]
    id: Id
    source: Annotated[str, Field(min_length=1, max_length=1024)]
    time: UtcTime | None = None
    datacontenttype: Literal["application/json"] | None = None


class _RecommendationEnvelope(_Envelope):
    type: Literal["newfound.recommendation.v1"]
    data: RecommendationEvent


class _FeedbackEnvelope(_Envelope):
    type: Literal["newfound.feedback.v1"]
    data: FeedbackEvent


class _InferenceEnvelope(_Envelope):
    type: Literal["org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"]
    time: UtcTime
    inferenceservicename: Id
    data: Any


_AnyEnvelope: TypeAlias = Annotated[
    _RecommendationEnvelope | _FeedbackEnvelope | _InferenceEnvelope, Field(discriminator="type")
]
_ONE: TypeAdapter[_AnyEnvelope] = TypeAdapter(_AnyEnvelope)
_DATA: Final[dict[str, TypeAdapter[Any]]] = {
    RECOMMENDATION_TYPE: TypeAdapter(RecommendationEvent),
    FEEDBACK_TYPE: TypeAdapter(FeedbackEvent),
    REQUEST_TYPE: TypeAdapter(Any),
    RESPONSE_TYPE: TypeAdapter(Any),
}
_TAGS: Final = frozenset(_DATA)


@dataclass(frozen=True)
class Intake:
    """Checks requests by one configuration and one key."""

    config: MonitoringConfig
    secret: bytes

    def __post_init__(self) -> None:
        limits = Field(min_length=1, max_length=self.config.batch_events)
        object.__setattr__(self, "_batch", TypeAdapter(Annotated[list[_AnyEnvelope], limits, FailFast()]))

    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Batch:
        """The events of one request.

        An event whose moment lies further ahead than clocks may is one of a wrong clock: its arrival is its moment.

        Args:
            headers: lower-case names.
            body: the whole body, its size already bounded.
            now: UTC.

        Raises:
            Refused: any event of the request is not acceptable.
        """
        problems: list[dict[str, Any]] = []
        events: list[Stored] = []
        corrected: set[str] = set()
        for index, envelope in enumerate(self._envelopes(headers, body)):
            event = _event(envelope)
            problems += [{"event": index, **problem} for problem in self._check(envelope, event, now)]
            if event.at > now + timedelta(seconds=self.config.future_seconds):
                event = _moved(event, now)
                corrected.add(event.id)
            events.append(event)
        if problems:
            raise Refused(422, problems)
        return Batch(events, frozenset(corrected))

    def _envelopes(self, headers: Mapping[str, str], body: bytes) -> list[_AnyEnvelope]:
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            if kind == BATCH:
                return self._batch.validate_json(body, strict=True)  # type: ignore[attr-defined, no-any-return]
            if kind == STRUCTURED:
                return [_ONE.validate_json(body, strict=True)]
            if "ce-specversion" in headers:
                return [_binary(headers, kind, body)]
        except ValidationError as error:
            if kind == BATCH and _is_of_an_event(error):
                raise Refused(422, _problems_by_event(body, self.config.batch_events)) from error
            raise Refused(400 if _is_malformed(error) else 422, _problems(error)) from error
        expected = f"expected {STRUCTURED}, {BATCH}, or ce- headers beside application/json"
        raise Refused(415, [{"field": "content-type", "problem": expected}])

    def _check(self, envelope: _AnyEnvelope, event: Stored, now: datetime) -> list[dict[str, str]]:
        problems = []
        if not isinstance(event, Inference) and envelope.id != event.id:
            problems.append({"field": "data.id", "problem": f"differs from the envelope's id {envelope.id!r}"})
        if event.at < now - timedelta(days=self.config.age_days):
            field = "time" if isinstance(event, Inference) else "data.at"
            problems.append({"field": field, "problem": f"is older than {self.config.age_days} days"})
        if isinstance(event, RecommendationEvent) and event.user_key != user_key(event.user_id, self.secret):
            problems.append({"field": "data.user_key", "problem": "is not this user's hash under the shared key"})
        return problems


def _moved(event: Stored, now: datetime) -> Stored:
    if isinstance(event, Inference):
        return Inference(event.id, now, event.service, event.kind, event.instances)
    return event.model_copy(update={"at": now})


def _binary(headers: Mapping[str, str], kind: str, body: bytes) -> _AnyEnvelope:
    """Binary mode: attributes in `ce-` headers, the data in the body."""
    attributes: dict[str, Any] = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    attributes["datacontenttype"] = kind or None
    if attributes.get("type") not in _TAGS:
        expected = ", ".join(sorted(_TAGS))
        raise Refused(422, [{"event": 0, "field": "type", "problem": f"expected one of {expected}"}])
    try:
        attributes["data"] = _DATA[attributes["type"]].validate_json(body, strict=True)
    except ValidationError as error:
        raise Refused(400 if _is_malformed(error) else 422, _problems(error, prefix=("data",))) from error
    # Header values are strings: times are parsed, hence not strict.
    return _ONE.validate_python(attributes, strict=False)


def _event(envelope: _AnyEnvelope) -> Stored:
    if isinstance(envelope, _InferenceEnvelope):
        kind = "request" if envelope.type == REQUEST_TYPE else "response"
        return Inference(envelope.id, envelope.time, envelope.inferenceservicename, kind, _instances(envelope.data))
    return envelope.data


def _instances(data: Any) -> int:
    """Number of rows of an inference request or response, in the v1 or the v2 protocol."""
    if not isinstance(data, dict):
        return 0
    for name in ("instances", "predictions"):
        if isinstance(data.get(name), list):
            return len(data[name])
    for name in ("inputs", "outputs"):
        tensors = data.get(name)
        if isinstance(tensors, list) and tensors and isinstance(tensors[0], dict):
            shape = tensors[0].get("shape")
            if isinstance(shape, list) and shape and isinstance(shape[0], int) and 0 <= shape[0] < 2**31:
                return shape[0]
    return 0


def _is_malformed(error: ValidationError) -> bool:
    return any(one["type"] == "json_invalid" for one in _told(error))


def _is_of_an_event(error: ValidationError) -> bool:
    return any(one["loc"] for one in _told(error))


def _told(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_context=False, include_input=False))


def _problems_by_event(body: bytes, most: int) -> list[dict[str, Any]]:
    """Problems of a batch, of every event that has any."""
    events = from_json(body)
    if len(events) > most:
        return [{"field": "(body)", "problem": f"{len(events)} events, expected at most {most}"}]
    problems: list[dict[str, Any]] = []
    for index, event in enumerate(events):
        try:
            _ONE.validate_json(to_json(event), strict=True)
        except ValidationError as error:
            told = len(problems) >= _SHOWN_PROBLEMS
            problems += [{"event": index}] if told else _problems(error, index)
    return problems


def _problems(error: ValidationError, index: int = 0, prefix: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    problems = []
    for one in _told(error)[:_OF_EVENT]:
        field = ".".join([*prefix, *(str(part) for part in one["loc"] if part not in _TAGS)])
        if one["type"] in ("union_tag_invalid", "union_tag_not_found"):
            field = "type"
        # The message may quote what was sent; a message without the value is enough to find it.
        problems.append({"event": index, "field": field[:300] or "(body)", "problem": one["msg"][:300]})
    return problems
