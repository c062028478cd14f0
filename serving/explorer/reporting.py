"""Reports answers: metrics, a log line, an event for the collector."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from newfound.events import RECOMMENDATION_TYPE, user_key
from newfound.recommend.decision import Decision, PlannerAnswer
from newfound.recommend.policy import Reason
from newfound.recommend.slate import Placed, Slate
from serving.explorer.job import Batch, Job
from serving.explorer.outbox import Outbox
from serving.http.api import YEAR_10000
from serving.http.logs import ACCESS
from serving.metrics import ANSWERS, DEGRADED, SLOTS

SOURCE = "/newfound/explorer"


class Reporter:
    """Reports each answer once.

    Args:
        outbox: where events go.
        secret: key of the users' hashes; the collector's own, where events are sent.
    """

    def __init__(self, outbox: Outbox, secret: bytes | None = None) -> None:
        self.outbox, self.secret = outbox, secret or secrets.token_bytes(32)
        self._slots: dict[tuple[str, str], Any] = {}

    def answered(self, decision: Decision, queried: bool, answer: PlannerAnswer | None) -> None:
        """Counts where the successors of the user's contexts came from."""
        if not decision.slots or not decision.context:
            return
        if queried:
            source = "planner" if answer is not None else "none"
        else:
            source = "table" if decision.from_table else "remembered" if decision.ask() is None else "none"
        ANSWERS.labels(source).inc()

    def shown(self, batch: Batch, job: Job, placed: Sequence[Placed], slate: Slate, milliseconds: float) -> None:
        """Counts, logs, and hands the event over; `milliseconds` went by from the request's arrival to its slate."""
        reasons: dict[str, int] = {}
        for entry in placed:
            reasons[entry.reason.value] = reasons.get(entry.reason.value, 0) + 1
            key = (entry.slot_kind.value, entry.reason.value)
            if key not in self._slots:
                self._slots[key] = SLOTS.labels(*key)
            self._slots[key].inc()
        for code in job.degraded:
            DEGRADED.labels(code).inc()
        user = job.request.user_id or f"anonymous-{slate.id}"
        key_of_user = user_key(user, self.secret)
        ACCESS.info(
            "recommended",
            extra={
                "fields": {
                    "request": batch.id,
                    "recommendation": slate.id,
                    "release": slate.release,
                    "user": key_of_user,
                    "ms": round(milliseconds, 2),
                    "reasons": reasons,
                    "degraded": job.degraded,
                }
            },
        )
        if self.outbox.url is not None and placed:
            self.outbox.put(self._event(job, placed, slate, user, key_of_user, milliseconds))

    def _event(
        self, job: Job, placed: Sequence[Placed], slate: Slate, user: str, key_of_user: str, milliseconds: float
    ) -> dict[str, Any]:
        """A structured CloudEvent of `newfound.events.RecommendationEvent`, as a dict: every request pays for it."""
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        decision = job.decision
        data = {
            "id": slate.id,
            "at": at,
            "user_key": key_of_user,
            "user_id": user,
            "release": slate.release,
            "slots": [_slot(place, entry, slate) for place, entry in enumerate(placed)],
            "interests": [interest.cluster for interest in decision.interests],
            "history_length": len(job.history.item_ids),
            "history_at": _moment(job.history.newest),
            "answers": decision.answers_event(job.answer, job.generated).model_dump(),
            "seed": job.seed,
            "client_seed": job.request.seed is not None,
            "latency_ms": milliseconds,
            "degraded": bool(job.degraded),
        }
        return {
            "specversion": "1.0",
            "id": slate.id,
            "source": SOURCE,
            "type": RECOMMENDATION_TYPE,
            "time": at,
            "datacontenttype": "application/json",
            "data": data,
        }


def _moment(milliseconds: int | None) -> str | None:
    """A stored time as events have it; None where there is none, or where it is no date."""
    if milliseconds is None or not 0 <= milliseconds < YEAR_10000:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _slot(place: int, entry: Placed, slate: Slate) -> dict[str, Any]:
    return {
        "position": place,
        "item": entry.item,
        "cluster": entry.cluster,
        "kind": entry.slot_kind.value,
        "propensity": entry.propensity,
        "reason": entry.reason.value,
        "candidates": dict(entry.candidates or {}),
        "floor": entry.floor,
        "eligible": entry.eligible,
        "because": list(entry.context),
        "score": slate.items[place].score if entry.reason is not Reason.POPULAR else None,
    }
