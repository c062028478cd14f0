"""The short chaos: real processes broken one by one; every request is answered, and every event accounted for."""

from __future__ import annotations

from tests.chaos.rehearsal import rehearse

FAULTS = [
    ("redis", "half-open"),
    ("ranker", "stop"),
    ("postgres", "kill"),
    ("planner", "wrong"),
    ("ranker", "kill"),
    ("disk", "short"),
    ("redis", "garbage"),
    ("planner", "slow"),
]


def test_every_request_is_answered_whatever_breaks(tmp_path):
    record = rehearse(tmp_path, 100, 12, "local", FAULTS, fault_s=1.5, rest_s=1.5)
    assert record["requests"] > 200
    for name in ("unanswered", "http_4xx", "http_5xx", "shed", "degraded_without_code"):
        assert record[name] == 0, (name, record)
    assert record.get("events_lost", 0) == 0 == record.get("events_dropped", 0), record
    struck = [name for name in record if name.startswith("degraded_share.") and not name.startswith(_SILENT)]
    assert len(struck) >= 4 and all(record[name] > 0 for name in struck), record
    assert all(record[name] == 0 for name in record if name.startswith(_SILENT)), record


_SILENT = ("degraded_share.postgres", "degraded_share.disk")
