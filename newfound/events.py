"""Events between serving, clients and the collector: what was shown, and what came of it.

Both travel as CloudEvents 1.0 (`envelope` makes the structured form); the envelope's id, time and type are the event's
own, so an event that is sent twice is counted once. Names of items, clusters and users are bounded and printable, and
numbers are finite, so that whatever passes here can be stored anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, FailFast, Field, model_validator

from newfound.types import Id

RECOMMENDATION_TYPE: Final = "newfound.recommendation.v1"
FEEDBACK_TYPE: Final = "newfound.feedback.v1"
STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
FeedbackKind: TypeAlias = Literal["shown", "clicked", "watched", "liked", "dismissed"]
FEEDBACK_KINDS: Final[tuple[FeedbackKind, ...]] = get_args(FeedbackKind)

EventId: TypeAlias = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]
Key: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Unit: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**31 - 1)]
UtcTime: TypeAlias = Annotated[AwareDatetime, AfterValidator(lambda at: _in_utc(at))]


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years that UTC can name") from error


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlotEvent(_Event):
    """One slot of a slate, as it was decided.

    Attributes:
        position: 0 is the top of the slate.
        item: the item that was put there.
        cluster: the interface cluster that the slot was given to.
        kind: whether the cluster was ever consumed by the user before.
        propensity: exact marginal probability of the action (slot, cluster) under the policy that decided.
        reason: reason code; how far the decision had to step down, such as `table`, `planner`, `parent`, `popular`.
        candidates: probability of the clusters that this slot could have been given to; empty where it was not chosen
            at random.
        floor: probability of each eligible cluster that `candidates` leaves out; 0 where there is none.
        eligible: how many clusters the slot could have been given to; 0 where it was not chosen at random.
        because: the user's interests that led here, oldest first.
        score: the ranker's, where it ranked.
    """

    position: Annotated[int, Field(ge=0, lt=1000)]
    item: Id
    cluster: Id
    kind: Literal["familiar", "novel"]
    propensity: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    candidates: Annotated[dict[Id, Unit], Field(max_length=4096)] = {}
    floor: Unit = 0.0
    eligible: Count = 0
    because: Annotated[tuple[Id, ...], Field(max_length=8)] = ()
    score: Finite | None = None

    @model_validator(mode="after")
    def _candidates_hold_the_choice(self) -> SlotEvent:
        if self.candidates and not self.candidates.get(self.cluster, self.floor):
            raise ValueError(f"candidates give the chosen cluster {self.cluster!r} no probability")
        return self


class AnswersEvent(_Event):
    """Answers of table and planner for one request, before anything was taken out.

    Attributes:
        successors: clusters answered.
        leaked: those of them that the user had consumed already.
        generated: answers that the planner generated live.
        matched: those of them that were exactly a cluster's description.
    """

    successors: Count = 0
    leaked: Count = 0
    generated: Count = 0
    matched: Count = 0

    @model_validator(mode="after")
    def _parts_of_wholes(self) -> AnswersEvent:
        if self.leaked > self.successors or self.matched > self.generated:
            raise ValueError("leaked may not exceed successors, nor matched generated")
        return self


class RecommendationEvent(_Event):
    """One slate that was answered.

    Attributes:
        id: the recommendation's id; feedback refers to it.
        at: when it was answered.
        user_key: keyed hash of the user id, see `user_key`; the only form that leaves the stores.
        user_id: for the collector alone.
        release: the one release that the answer came from.
        interests: the recent unique positive clusters that the context was sampled from, most recent last.
        history_length: events in the history that the request was decided on.
        history_at: time of the newest of them; None without a history.
        seed: of the generator behind every random choice.
        client_seed: whether the client chose the seed; it could foresee the slots, so estimates of other policies leave
            the slate out.
        latency_ms: of the whole request inside the explorer.
        degraded: whether any part had to be stepped around.
    """

    id: EventId
    at: UtcTime
    user_key: Key
    user_id: Id
    release: EventId
    slots: Annotated[tuple[SlotEvent, ...], Field(min_length=1, max_length=1000), FailFast()]
    interests: Annotated[tuple[Id, ...], Field(max_length=1000)] = ()
    history_length: Count = 0
    history_at: UtcTime | None = None
    answers: AnswersEvent = AnswersEvent()
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    client_seed: bool = False
    latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    degraded: bool = False

    @model_validator(mode="after")
    def _slots_differ(self) -> RecommendationEvent:
        if len({slot.position for slot in self.slots}) != len(self.slots):
            raise ValueError("slots repeat a position")
        if len({slot.item for slot in self.slots}) != len(self.slots):
            raise ValueError("slots repeat an item")
        return self


class FeedbackEvent(_Event):
    """Feedback of a user on an item.

    Attributes:
        id: of this event.
        recommendation_id: the slate that it answers; None for what was consumed on other paths.
        kind: `shown` is an impression; `watched` comes with a share.
        share: watched share in [0, 1].
        at: when it happened at the client, not when it was sent.
    """

    id: EventId
    at: UtcTime
    recommendation_id: EventId | None = None
    user_id: Id
    item: Id
    kind: FeedbackKind
    share: Unit | None = None

    @model_validator(mode="after")
    def _share_where_watched(self) -> FeedbackEvent:
        if (self.share is not None) != (self.kind == "watched"):
            raise ValueError("share goes with kind 'watched', and only with it")
        return self


Event: TypeAlias = RecommendationEvent | FeedbackEvent


def user_key(user_id: str, secret: bytes) -> str:
    """Keyed hash of a user id (HMAC-SHA256, first 128 bits as hex): joins, but cannot be guessed back without the key.

    >>> user_key("42", b"secret") == user_key("42", b"secret") != user_key("42", b"other")
    True
    """
    return hmac.new(secret, user_id.encode(), hashlib.sha256).hexdigest()[:32]


def envelope(event: Event, source: str) -> dict[str, Any]:
    """The event as a structured CloudEvent, JSON values only; a list of them is a batch.

    Args:
        event: recommendation or feedback.
        source: URI reference of the sender, such as `/newfound/explorer`.
    """
    data = event.model_dump(mode="json", exclude_defaults=True)
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": RECOMMENDATION_TYPE if isinstance(event, RecommendationEvent) else FEEDBACK_TYPE,
        "time": _iso(event.at),
        "datacontenttype": "application/json",
        "data": data,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
