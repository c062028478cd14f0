"""Figures held against their bounds, the gates that must hold before a release is published, and its flags."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from newfound.config import EvaluationConfig
from newfound.errors import GateError

BESIDE: Final = "experiment.planner.minus.pair_frequency"


@dataclass(frozen=True)
class Check:
    """A figure and its bound.

    Attributes:
        name: of the figure.
        value: the figure; one that is not a number passes no bound.
        bound: the least or the most that is expected.
        at_least: whether the bound is a lower one.
        label: the name in words, where people read it.
    """

    name: str
    value: float
    bound: float
    at_least: bool = True
    label: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bound holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def expected(self) -> str:
        """The bound in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:.4g}"

    def __str__(self) -> str:
        return f"{self.name} is {self.value:.4g}, expected {self.expected}"


def require(checks: Iterable[Check]) -> dict[str, dict[str, Any]]:
    """Holds every gate.

    Returns:
        `value`, `bound` and `passed` of every gate by name, as a release's manifest keeps them.

    Raises:
        GateError: names every gate that does not hold, with its value and its bound.
    """
    checks = list(checks)
    failed = [
        f"gate {check.name!r}{f' ({check.label})' if check.label else ''}: {check.value:.4g}, expected {check.expected}"
        for check in checks
        if not check.passed
    ]
    if failed:
        raise GateError("; ".join(failed))
    return {check.name: {"value": check.value, "bound": check.bound, "passed": check.passed} for check in checks}


def release_checks(metrics: Mapping[str, Any], config: EvaluationConfig) -> list[Check]:
    """The gates of a release, after arXiv 2510.20260: match rate, and recall as a multiple of chance.

    A measure that is absent fails its gate. Without a language model (ids alone: the table then comes from pair
    frequencies) there is no match rate to ask for, and the recall is the table's.

    Args:
        metrics: of `evaluate`, by the flat keys of metrics.json.
        config: the bounds.
    """

    def figure(key: str) -> float:
        return float(metrics.get(key, math.nan))

    has_planner = metrics.get("planner.present", 1) != 0
    recall = figure(f"{'planner' if has_planner else 'table'}.recall_over_chance.lower")
    checks = [
        Check(
            "recall_over_chance",
            recall,
            config.min_recall_over_chance,
            label="NovelRecall@1 over chance, lower bound",
        )
    ]
    if has_planner:
        match_rate = figure("planner.match_rate")
        label = "Match rate, free decoding"
        checks.insert(0, Check("match_rate", match_rate, config.min_match_rate, label=label))
    return checks


def release_flags(metrics: Mapping[str, Any], config: EvaluationConfig) -> dict[str, str]:
    """Flags of a release: what a person should know of it and what refuses nothing.

    The small experiment asks both halves of the claim of the planner, beside pair frequency: that it finds more is
    shown where the interval lies above zero, and that its finds are liked less is shown where the other lies below.
    Without a language model there is nothing to ask.

    Args:
        metrics: of `evaluate`, by the flat keys of metrics.json.
        config: for the confidence.

    Returns:
        By name a sentence with the figure and its interval.
    """
    if metrics.get("planner.present", 1) == 0:
        return {}
    flags = {}
    found, liked = (figures_of(metrics, half, config) for half in ("found", "liked"))
    if not metrics.get(f"{BESIDE}.found.lower", math.nan) > 0:
        said = found or "nobody met a new interest after the cut"
        flags["experiment.found"] = f"not shown that the planner finds more than pair frequency: {said}"
    if metrics.get(f"{BESIDE}.liked.upper", math.nan) < 0:
        flags["experiment.liked"] = f"what the planner chooses is liked less than what pair frequency chooses: {liked}"
    return flags


def figures_of(metrics: Mapping[str, Any], half: str, config: EvaluationConfig) -> str:
    """The planner minus pair frequency in the small experiment, in words; empty where there is no figure.

    Args:
        metrics: of `evaluate`.
        half: `found` or `liked`.
        config: for the confidence.
    """
    key = f"{BESIDE}.{half}"
    if key not in metrics:
        return ""
    value, lower, upper = (float(metrics.get(f"{key}{end}", math.nan)) for end in ("", ".lower", ".upper"))
    people = int(metrics.get(f"experiment.people.{half}", 0))
    return (
        f"{value:+.4f} [{lower:+.4f}, {upper:+.4f}] a choice, {config.confidence:.0%} interval over {people:,} people"
    )
