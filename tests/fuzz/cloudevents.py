"""Fuzz target: bodies and headers of CloudEvents, through the collector's checks and into a real store.

Whatever comes in is refused with a 4xx that names a field, or stored and known again when it comes once more.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from monitoring.collector.intake import Intake, Refused
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from newfound.events import BATCH, STRUCTURED, envelope
from tests.monitoring import servers as parts

SHARE: Final = 0.1
_NOW: Final = datetime.now(UTC)
_INTAKE: Final = Intake(MonitoringConfig(batch_events=50), parts.SECRET.encode())
_KINDS: Final = (STRUCTURED, BATCH, "application/json")
_TYPES: Final = (
    "newfound.feedback.v1",
    "newfound.recommendation.v1",
    "org.kubeflow.serving.inference.request",
    "org.kubeflow.serving.inference.response",
)
SEEDS: Final = [
    b"\0" + json.dumps(envelope(parts.feedback(1, at=_NOW), "/t")).encode(),
    b"\0" + json.dumps(envelope(parts.recommendation(1, at=_NOW), "/t")).encode(),
    b"\1" + json.dumps(parts.batch([parts.feedback(2, at=_NOW), parts.recommendation(2, at=_NOW)])).encode(),
    b"\2" + json.dumps(envelope(parts.feedback(3, at=_NOW), "/t")["data"]).encode(),
    b"\x0a" + json.dumps({"instances": [{"user_id": "42"}] * 3}).encode(),
    b"\x0e" + json.dumps({"outputs": [{"shape": [3, 2]}]}).encode(),
]


class Target:
    """The checks, and a store in memory that takes what passes them."""

    def __init__(self) -> None:
        self.store = Store("sqlite://", parts.SECRET.encode(), quota=1000)
        self.taken = 0

    def __call__(self, data: bytes) -> None:
        """One input: the first byte says how it is sent, the rest is the body."""
        how, body = (data[0] if data else 0), data[1:]
        headers = {"content-type": _KINDS[how % 3 if how % 4 < 3 else 2]}
        if headers["content-type"] == "application/json":
            named = _TYPES[how // 4 % 4]
            headers |= {"ce-specversion": "1.0", "ce-id": "f3", "ce-source": "/t", "ce-type": named}
            headers |= {"ce-time": _NOW.isoformat(), "ce-inferenceservicename": body[:9].decode("latin-1") or "x"}
        try:
            batch = _INTAKE.read(headers, body, _NOW)
        except Refused as refused:
            assert 400 <= refused.status < 500 and refused.problems, refused
            json.dumps(refused.body)
            return
        first, again = self.store.write_batches([batch]), self.store.write_batches([batch])
        assert bool(first.refused) == bool(again.refused)
        if not first.refused:
            assert again.duplicates == len(batch.events) and not again.new
            self.taken += len(batch.events)
