"""Bounds of a window's measures: absolute ones, and falls against the reference windows."""

from __future__ import annotations

from collections.abc import Mapping

from monitoring.settings import MonitoringConfig
from newfound.gates import Check

Measures = Mapping[str, float | None]
DRIFT: str = "drift_share"


def check(current: Measures, reference: Measures, config: MonitoringConfig) -> list[Check]:
    """Holds a window against the bounds.

    A measure that could not be taken is not checked; few impressions, or those of few users, say nothing of people, but
    the platform's own health (degraded share, match rate, leak) is checked all the same.

    Args:
        current: measures of the window, drift included.
        reference: the same measures of the reference windows.
        config: the bounds.
    """
    checks: list[Check] = []

    def hold(name: str, bound: float | None, at_least: bool) -> None:
        value = current.get(name)
        if value is not None and bound is not None:
            checks.append(Check(name, value, bound, at_least))

    def fallen(name: str, share: float) -> float | None:
        before = reference.get(name)
        return None if before is None else before * (1 - share)

    def tells(measures: Measures) -> bool:
        impressions, users = (measures.get(name) or 0 for name in ("impressions", "users"))
        return impressions >= config.min_impressions and users >= config.min_users

    if tells(current):
        if tells(reference):
            hold("novelty_ratio", fallen("novelty_ratio", config.novelty_ratio_fall), True)
            hold("novel_positive_rate", fallen("novel_positive_rate", config.novel_positive_rate_fall), True)
            hold(DRIFT, config.drifted_columns, False)
        hold("suppression_ratio", config.min_suppression_ratio, True)
    hold("match_rate", config.min_match_rate, True)
    hold("leak", config.max_leak, False)
    hold("degraded_share", config.max_degraded, False)
    return checks
