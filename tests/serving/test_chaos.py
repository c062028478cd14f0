"""The short chaos: real processes broken one by one; every request is answered, and says what it went without."""

from __future__ import annotations

from tests.benchmarks import chaos

FAULTS = [
    ("redis", "kill"),
    ("ranker", "stop"),
    ("planner", "wrong"),
    ("ranker", "kill"),
    ("redis", "garbage"),
    ("planner", "slow"),
]


def test_every_request_is_answered_whatever_breaks(tmp_path):
    record = chaos.rehearse(tmp_path, 100, 12, "local", FAULTS, fault_s=2.0, rest_s=2.0)
    assert record["requests"] > 200
    for name in ("unanswered", "http_4xx", "http_5xx", "shed", "degraded_without_code"):
        assert record[name] == 0, (name, record)
    struck = [name for name in record if name.startswith("degraded_share.")]
    assert len(struck) >= 4 and all(record[name] > 0 for name in struck), record
