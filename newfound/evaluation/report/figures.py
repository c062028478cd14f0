"""Figures of an evaluation as the page's sections read them from the findings: values, intervals, dots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from newfound.evaluation.report.charts import Dot, number

Findings: TypeAlias = Mapping[str, Any]


def value_of(findings: Findings, key: str) -> float:
    """A measure by its flat key of metrics.json; NaN where it is absent."""
    value = findings["metrics"].get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def interval_of(findings: Findings, key: str) -> str:
    """A measure's interval in words; empty where it has none."""
    lower, upper = value_of(findings, f"{key}.lower"), value_of(findings, f"{key}.upper")
    return f"{number(lower)} to {number(upper)}" if math.isfinite(lower) else ""


def dot_of(findings: Findings, key: str, label: str, kind: str, chance: float = math.nan) -> Dot:
    """A measure with its interval as a row of a dot plot."""
    value, lower, upper = (value_of(findings, f"{key}{end}") for end in ("", ".lower", ".upper"))
    return Dot(label, value, lower, upper, kind, chance)


def dots_of(findings: Findings, slice_key: str, measure: str) -> list[Dot]:
    """A measure of every method on one slice, each row with its chance."""
    middle = "" if slice_key == "all" else f"{slice_key}."
    chance = value_of(findings, f"chance.{middle}{measure}")
    return [
        dot_of(findings, f"{method['key']}.{middle}{measure}", method["label"], method["kind"], chance)
        for method in findings["methods"]
    ]
