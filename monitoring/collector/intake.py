"""Checks of requests: an HTTP request becomes events, or a refusal that names the field; the store is not touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from monitoring.settings import MonitoringConfig
from monitoring.store.database import Inference, Stored
from newfound.events import (
    BATCH,
    FEEDBACK_TYPE,
    RECOMMENDATION_TYPE,
    STRUCTURED,
    FeedbackEvent,
    Id,
    Moment,
    RecommendationEvent,
    user_key,
)

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"
_SHOWN_PROBLEMS: Final = 20


class Refused(Exception):
    """A request of which nothing is stored.

    Args:
        status: HTTP status, 4xx.
        problems: what is wrong and where: `event` (index in a batch), `field`, `problem`.
    """

    def __init__(self, status: int, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(problems[0]["problem"])
        self.status, self.problems = status, list(problems[:_SHOWN_PROBLEMS])


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)  # extension attributes are welcome, and not kept

    specversion: Literal["1.0"]
    id: Id
    source: Annotated[str, Field(min_length=1, max_length=1024)]
    time: Moment | None = None
    datacontenttype: Literal["application/json"] | None = None


class _RecommendationEnvelope(_Envelope):
    type: Literal["newfound.recommendation.v1"]
    data: RecommendationEvent


class _FeedbackEnvelope(_Envelope):
    type: Literal["newfound.feedback.v1"]
    data: FeedbackEvent


class _InferenceEnvelope(_Envelope):
    type: Literal["org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"]
    time: Moment
    inferenceservicename: Annotated[str, Field(min_length=1, max_length=256)]
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
        object.__setattr__(
            self,
            "_batch",
            TypeAdapter(Annotated[list[_AnyEnvelope], Field(min_length=1, max_length=self.config.batch_events)]),
        )

    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> list[Stored]:
        """The events of one request.

        Args:
            headers: lower-case names.
            body: the whole body, its size already bounded.
            now: UTC.

        Raises:
            Refused: any event of the request is not acceptable.
        """
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            if kind == BATCH:
                envelopes = self._batch.validate_json(body, strict=True)  # type: ignore[attr-defined]
            elif kind == STRUCTURED:
                envelopes = [_ONE.validate_json(body, strict=True)]
            elif "ce-specversion" in headers:
                envelopes = [_binary(headers, kind, body)]
            else:
                raise Refused(
                    415,
                    [
                        {
                            "field": "content-type",
                            "problem": f"expected {STRUCTURED}, {BATCH}, or ce- headers beside application/json",
                        }
                    ],
                )
        except ValidationError as error:
            raise _refused(error, batch=kind == BATCH) from error
        problems: list[dict[str, Any]] = []
        events: list[Stored] = []
        for index, envelope in enumerate(envelopes):
            problems += [
                {"event": index, "field": field, "problem": problem} for field, problem in self._check(envelope, now)
            ]
            events.append(_event(envelope))
        if problems:
            raise Refused(422, problems)
        return events

    def _check(self, envelope: _AnyEnvelope, now: datetime) -> list[tuple[str, str]]:
        problems = []
        if isinstance(envelope, _InferenceEnvelope):
            field, at = "time", envelope.time
        else:
            field, at = "data.at", envelope.data.at
            if envelope.id != envelope.data.id:
                problems.append(("data.id", f"differs from the envelope's id {envelope.id!r}"))
        if at > now + timedelta(seconds=self.config.future_seconds):
            problems.append((field, f"lies more than {self.config.future_seconds} s in the future"))
        if at < now - timedelta(days=self.config.age_days):
            problems.append((field, f"is older than {self.config.age_days} days"))
        if isinstance(envelope, _RecommendationEnvelope):
            data = envelope.data
            if data.user_key != user_key(data.user_id, self.secret):
                problems.append(("data.user_key", "is not this user's hash under the shared key"))
        return problems


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
        raise _refused(error, prefix=("data",)) from error
    # Header values are strings: times are parsed, hence not strict.
    return _ONE.validate_python(attributes, strict=False)


def _event(envelope: _AnyEnvelope) -> Stored:
    if isinstance(envelope, _InferenceEnvelope):
        kind = "request" if envelope.type == REQUEST_TYPE else "response"
        return Inference(envelope.id, envelope.time, envelope.inferenceservicename, kind, _instances(envelope.data))
    return envelope.data


def _instances(data: Any) -> int:
    """How many rows an inference request or response holds, in the v1 or the v2 protocol."""
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


def _refused(error: ValidationError, *, batch: bool = False, prefix: tuple[str, ...] = ()) -> Refused:
    problems: list[dict[str, Any]] = []
    malformed = False
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        malformed |= one["type"] == "json_invalid"
        where = list(one["loc"])
        index = where.pop(0) if batch and where else 0
        field = ".".join([*prefix, *(str(part) for part in where if part not in _TAGS)])
        if one["type"] in ("union_tag_invalid", "union_tag_not_found"):
            field = "type"
        # The message may quote what was sent; a message without the value is enough to find it.
        problems.append({"event": index, "field": field or "(body)", "problem": one["msg"][:300]})
    return Refused(400 if malformed else 422, problems)
