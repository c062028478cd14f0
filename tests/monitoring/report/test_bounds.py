"""The bounds of a window's measures."""

from __future__ import annotations

import pytest

from monitoring.report.bounds import check
from monitoring.settings import MonitoringConfig

CONFIG = MonitoringConfig()


def test_bounds() -> None:
    reference = {"impressions": 1000.0, "users": 50.0, "novelty_ratio": 0.4, "novel_positive_rate": 0.2}
    current = {
        "impressions": 1000.0,
        "users": 50.0,
        "novelty_ratio": 0.31,
        "novel_positive_rate": 0.1,
        "suppression_ratio": 0.5,
        "match_rate": None,
        "leak": 0.2,
        "degraded_share": 0.2,
        "drift_share": 0.1,
    }
    checks = {one.name: one for one in check(current, reference, CONFIG)}
    assert checks["novelty_ratio"].passed and checks["novelty_ratio"].bound == pytest.approx(0.3)
    assert {name for name, one in checks.items() if not one.passed} == {
        "novel_positive_rate",
        "suppression_ratio",
        "degraded_share",
    }
    assert "match_rate" not in checks
    assert str(checks["degraded_share"]) == "degraded_share is 0.2, expected at most 0.05"
    for few in ({"impressions": 10.0}, {"users": 3.0}):
        names = {one.name for one in check({**current, **few}, reference, CONFIG)}
        assert names == {"leak", "degraded_share"}, "they say nothing of people, and enough of the platform"
