"""Rows of the store's tables, made from events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from newfound.events import FeedbackEvent, RecommendationEvent, SlotEvent, user_key

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Row: TypeAlias = dict[str, Any]
TABLES: Final = ("recommendations", "feedback", "inferences")


def micros(at: datetime) -> int:
    """UTC microseconds since the epoch, without rounding through floats."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """The inverse of `micros`."""
    return _EPOCH + timedelta(microseconds=value)


@dataclass(frozen=True)
class Inference:
    """One record of KServe's logger: that a call happened, without its content."""

    id: str
    at: datetime
    service: str
    kind: str
    instances: int


Stored: TypeAlias = RecommendationEvent | FeedbackEvent | Inference


def row_of(event: Stored, secret: bytes) -> tuple[str, Row]:
    """The event's table and row.

    Args:
        event: a checked event.
        secret: key of the users' hashes.
    """
    if isinstance(event, RecommendationEvent):
        return "recommendations", _recommendation(event)
    if isinstance(event, FeedbackEvent):
        return "feedback", _feedback(event, secret)
    return "inferences", {
        "id": f"{event.id}:{event.kind}",
        "at": micros(event.at),
        "service": event.service,
        "kind": event.kind,
        "instances": event.instances,
    }


def is_repetition(row: Row, stored: Mapping[str, Any]) -> bool:
    """Whether a row is the stored one of the same id once more, and not another event that took its id.

    The moment may be later than the stored one: a clock that was ahead was corrected when the event came first.
    """
    if row["at"] < stored["at"]:
        return False
    different = [name for name in row if name != "at" and row[name] != stored[name]]
    return not different or (different == ["slots"] and _slots(row["slots"]) == _slots(stored["slots"]))


def _slots(text: str) -> list[SlotEvent]:
    """Slots as events: fields that a later version added have their defaults in rows of an earlier one."""
    return [SlotEvent.model_validate(slot) for slot in json.loads(text)]


def _feedback(event: FeedbackEvent, secret: bytes) -> Row:
    return {
        "id": event.id,
        "at": micros(event.at),
        "user_id": event.user_id,
        "user_key": user_key(event.user_id, secret),
        "recommendation_id": event.recommendation_id,
        "item": event.item,
        "kind": event.kind,
        "share": event.share,
    }


def _recommendation(event: RecommendationEvent) -> Row:
    return {
        "id": event.id,
        "at": micros(event.at),
        "user_id": event.user_id,
        "user_key": event.user_key,
        "release": event.release,
        "history_length": event.history_length,
        "history_at": None if event.history_at is None else micros(event.history_at),
        "successors": event.answers.successors,
        "leaked": event.answers.leaked,
        "generated": event.answers.generated,
        "matched": event.answers.matched,
        "seed": str(event.seed),
        "client_seed": event.client_seed,
        "latency_ms": event.latency_ms,
        "degraded": event.degraded,
        "interests": json.dumps(event.interests),
        "slots": json.dumps([slot.model_dump(mode="json") for slot in event.slots], separators=(",", ":")),
    }
