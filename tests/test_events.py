from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from newfound.events import (
    FEEDBACK_TYPE,
    RECOMMENDATION_TYPE,
    FeedbackEvent,
    RecommendationEvent,
    envelope,
    user_key,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def slot(**changes: object) -> dict[str, object]:
    return {
        "position": 0,
        "item": "50",
        "cluster": "c1",
        "kind": "novel",
        "propensity": 0.25,
        "reason": "table",
        "candidates": {"c1": 0.25, "c2": 0.75},
        **changes,
    }


def recommendation(**changes: object) -> dict[str, object]:
    return {
        "id": "r1",
        "at": AT,
        "user_key": user_key("42", b"k"),
        "user_id": "42",
        "release": "20260301T000000-0123456789ab",
        "slots": (slot(), slot(position=1, item="51")),
        "seed": 2**63 + 1,
        "latency_ms": 3.5,
        **changes,
    }


def test_both_events_survive_their_envelope() -> None:
    shown = RecommendationEvent.model_validate(recommendation())
    sent = json.loads(json.dumps(envelope(shown, "/newfound/explorer")))
    assert (sent["type"], sent["id"], sent["time"]) == (RECOMMENDATION_TYPE, "r1", "2026-03-01T12:00:00Z")
    assert RecommendationEvent.model_validate(sent["data"]) == shown

    liked = FeedbackEvent(id="f1", at=AT, recommendation_id="r1", user_id="42", item="50", kind="watched", share=0.5)
    sent = json.loads(json.dumps(envelope(liked, "/app")))
    assert sent["type"] == FEEDBACK_TYPE
    assert FeedbackEvent.model_validate(sent["data"]) == liked


def test_times_become_utc() -> None:
    there = AT.astimezone(timezone(timedelta(hours=-7)))
    event = FeedbackEvent(id="f", at=there, user_id="42", item="50", kind="liked")
    assert event.at == AT and event.at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "with space"}, "id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"user_key": "42"}, "user_key"),
        ({"at": "2026-03-01T12:00:00"}, "at"),  # no time zone
        ({"slots": ()}, "slots"),
        ({"slots": (slot(propensity=0.0),)}, "slots.0.propensity"),
        ({"slots": (slot(propensity=float("nan")),)}, "slots.0.propensity"),
        ({"slots": (slot(score=float("inf")),)}, "slots.0.score"),
        ({"slots": (slot(cluster="c9"),)}, "slots.0"),  # not among its candidates
        ({"slots": (slot(), slot())}, ""),  # a position twice
        ({"slots": (slot(), slot(position=1))}, ""),  # an item twice
        ({"answers": {"successors": 1, "leaked": 2}}, "answers"),
        ({"password": "x"}, "password"),
    ],
)
def test_a_bad_recommendation_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RecommendationEvent.model_validate(recommendation(**changes))
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == field


@pytest.mark.parametrize("changes", [{"kind": "watched"}, {"kind": "liked", "share": 0.5}, {"kind": "bought"}])
def test_bad_feedback_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FeedbackEvent.model_validate({"id": "f", "at": AT, "user_id": "42", "item": "50", **changes})
