"""Promotes a canary release, or rolls it back, on what people did with its slates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from monitoring.settings import MonitoringConfig

Measures = Mapping[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """What to do with the canary, and why."""

    action: Literal["promote", "rollback", "wait"]
    reason: str


def judge(canary: Measures, stable: Measures, config: MonitoringConfig) -> Verdict:
    """Compares a canary with the stable release over the same window.

    It is rolled back where it is worse with confidence (positive rate on novel slots, or the share of degraded
    answers), promoted where it can no longer be much worse: the interval's lower bound of its positive rate over the
    stable one's lies above what a window may lose anyway.

    Args:
        canary: measures of the canary's slates.
        stable: measures of the stable release's slates in the same window.
        config: slates needed, confidence, and the fall that is tolerated.
    """
    slates = canary.get("slates") or 0
    degraded, usual = canary.get("degraded_share") or 0.0, stable.get("degraded_share") or 0.0
    if degraded > max(config.max_degraded, 2 * usual) and slates >= config.canary_slates / 10:
        return Verdict("rollback", f"{degraded:.1%} of the canary's answers are degraded, {usual:.1%} of the others'")
    if slates < config.canary_slates:
        return Verdict("wait", f"{slates:.0f} slates of the canary, {config.canary_slates} are needed")
    mine, theirs = canary.get("novel_positive_rate"), stable.get("novel_positive_rate")
    if mine is None or theirs is None:
        return Verdict("wait", "no novel impressions to compare yet")
    shown = [of.get("novel_impressions") or 0.0 for of in (canary, stable)]
    error = math.sqrt(sum(rate * (1 - rate) / max(n, 1.0) for rate, n in zip((mine, theirs), shown, strict=True)))
    margin = NormalDist().inv_cdf(config.canary_confidence) * error
    difference = f"{mine:.3f} against {theirs:.3f} on novel slots, give or take {margin:.3f}"
    if mine - theirs + margin < 0:
        return Verdict("rollback", f"worse: {difference}")
    if mine - theirs - margin > -config.novel_positive_rate_fall * theirs:
        return Verdict("promote", f"not worse: {difference}")
    return Verdict("wait", f"undecided: {difference}")
