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
from newfound.gates import Check
from newfound.release import store as releases

Measures = Mapping[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """The canary's fate, and the reason."""

    action: Literal["promote", "rollback", "wait"]
    reason: str


def compare(canary: Measures, stable: Measures, config: MonitoringConfig, *, repeatedly: bool = False) -> Verdict:
    """Compares a canary with the stable release over the same window.

    It is rolled back where it is worse with confidence (positive rate on novel slots, or the share of degraded
    answers), promoted where it can no longer be much worse: the interval's lower bound of its positive rate over the
    stable one's lies above what a window may lose anyway.

    Args:
        canary: measures of the canary's slates.
        stable: measures of the stable release's slates in the same window.
        config: slates needed, confidence, and the fall that is tolerated.
        repeatedly: whether a schedule compares again and again until it is decided. The confidence is then that of all
            comparisons together, and the interval wider.
    """
    slates = canary.get("slates") or 0
    usual = stable.get("degraded_share") or 0.0
    most = max(config.max_degraded, 2 * usual)
    degraded = Check("degraded share", canary.get("degraded_share") or 0.0, most, at_least=False)
    if not degraded.passed and slates >= config.canary_slates / 10:
        shares = f"{degraded.value:.1%} of the canary's answers are degraded, {usual:.1%} of the others'"
        return Verdict("rollback", shares)
    enough = Check("number of slates", slates, config.canary_slates)
    if not enough.passed:
        return Verdict("wait", f"{slates:.0f} slates of the canary, {enough.expected} are needed")
    mine, theirs = canary.get("novel_positive_rate"), stable.get("novel_positive_rate")
    if mine is None or theirs is None or not (mine or theirs):
        return Verdict("wait", "no positive novel impressions to compare yet")
    shown = [of.get("novel_impressions") or 0.0 for of in (canary, stable)]
    error = math.sqrt(sum(rate * (1 - rate) / max(n, 1.0) for rate, n in zip((mine, theirs), shown, strict=True)))
    many, one = _factor_of_many_looks, NormalDist().inv_cdf
    margin = error * (many(slates, config) if repeatedly else one(config.canary_confidence))
    difference = f"{mine:.3f} against {theirs:.3f} on novel slots, give or take {margin:.3f}"
    if not Check("best case", mine + margin, theirs).passed:
        return Verdict("rollback", f"worse: {difference}")
    if Check("worst case", mine - margin, theirs * (1 - config.novel_positive_rate_fall)).passed:
        return Verdict("promote", f"not worse: {difference}")
    return Verdict("wait", f"undecided: {difference}")


def _factor_of_many_looks(slates: float, config: MonitoringConfig) -> float:
    """Standard errors on either side, so that the truth is inside at every look at growing data at once.

    The normal mixture's boundary (Waudby-Smith and others, Time-uniform central limit theory and asymptotic confidence
    sequences, 2024, equations 6 and 9), narrowest where as many slates are there as a comparison needs.
    """
    miss = 2 * (1 - config.canary_confidence)  # on both sides
    narrowest = max(1.0, -2 * math.log(miss) + math.log(max(1.0, -2 * math.log(miss))) + 1)
    ratio = narrowest * slates / config.canary_slates
    return math.sqrt(2 * (1 + 1 / ratio) * math.log(math.sqrt(ratio + 1) / miss))


def compare_releases(
    store: Store,
    exports: Path,
    canary: str,
    root: str,
    span: timedelta,
    config: MonitoringConfig,
    now: datetime,
    *,
    repeatedly: bool = False,
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
        repeatedly: see `compare`; `span` then begins where the canary did, and a new export goes back no further.

    Returns:
        The verdict, and the id of the stable release; None where there is none.
    """
    export(store, exports, since=now - span if repeatedly else None)
    measures = measure(exports, now - span, now, config).measures
    stable = releases.current(root)
    if stable == canary:
        made = [manifest.id for manifest in releases.list_releases(root)]
        earlier = made[: made.index(canary)]
        stable = earlier[-1] if earlier else None
    verdict = compare(measures.get(canary, {}), measures.get(stable or "", {}), config, repeatedly=repeatedly)
    return verdict, stable


def act(verdict: Verdict, canary: str, stable: str | None, root: str, cache: Path | None) -> str | None:
    """Makes the verdict's release current, once it is verified; returns it, or None where nothing had to change."""
    current = releases.current(root)
    if verdict.action == "promote" and current != canary:
        return releases.promote(root, canary, cache, even_if_held=False).id
    if verdict.action == "rollback" and current == canary and stable is not None:
        return releases.rollback(root, stable, cache).id
    return None
