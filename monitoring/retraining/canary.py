"""The verdict on a canary release: promote, roll back or wait, from what people did with its slates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from monitoring.report.export import export
from monitoring.report.windows import measure
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from newfound.release import store as releases

Measures = Mapping[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """The canary's fate, and the reason."""

    action: Literal["promote", "rollback", "wait"]
    reason: str


def compare(canary: Measures, stable: Measures, config: MonitoringConfig) -> Verdict:
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


def compare_releases(
    store: Store, exports: Path, canary: str, root: str, span: timedelta, config: MonitoringConfig, now: datetime
) -> tuple[Verdict, str | None]:
    """Compares a canary with the release that is current, or, where it was promoted already, with the one before it.

    Args:
        store: where events are.
        exports: folder of the exported parts, which are brought up to date.
        canary: id of the canary release.
        root: folder or URL of all releases.
        span: time to compare over, ending now.
        config: see `compare`.
        now: UTC.

    Returns:
        The verdict, and the id of the stable release; None where there is none.
    """
    export(store, exports)
    measures = measure(exports, now - span, now, config).measures
    stable = releases.current(root)
    if stable == canary:
        made = [manifest.id for manifest in releases.list_releases(root)]
        earlier = made[: made.index(canary)]
        stable = earlier[-1] if earlier else None
    return compare(measures.get(canary, {}), measures.get(stable or "", {}), config), stable


def act(verdict: Verdict, canary: str, stable: str | None, root: str, cache: Path | None) -> str | None:
    """Makes the verdict's release current, once it is verified; returns it, or None where nothing had to change."""
    current = releases.current(root)
    if verdict.action == "promote" and current != canary:
        wanted = canary
    elif verdict.action == "rollback" and current == canary and stable is not None:
        wanted = stable
    else:
        return None
    releases.rollback(root, wanted, cache)  # verifies, then swaps the pointer: to a newer release as to an older
    return wanted
