"""The gates: what must hold before anything is published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from newfound.config import EvaluationConfig
from newfound.errors import GateError

Measures = Mapping[str, Any]

LABELS = {
    "match_rate": "Match rate, free decoding",
    "recall_over_chance": "NovelRecall@1 over chance, lower bound",
}
_MEASURES = {"match_rate": "planner.match_rate", "recall_over_chance": "planner.recall_over_chance.lower"}


def judge_gates(metrics: Measures, config: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """Every gate by name with its `value`, `bound` and whether it `passed`.

    A measure that is absent fails its gate, except where there is no language policy at all (ids alone: the table then
    comes from pair frequencies): the match rate of nothing is not asked for, and the recall is the table's.
    """
    bounds = {"match_rate": config.min_match_rate, "recall_over_chance": config.min_recall_over_chance}
    found: dict[str, dict[str, Any]] = {}
    for name, bound in bounds.items():
        key = _MEASURES[name]
        if metrics.get("planner.present", 1) == 0:
            if name == "match_rate":
                continue
            key = key.replace("planner.", "table.", 1)
        value = float(metrics.get(key, math.nan))
        found[name] = {"value": value, "bound": bound, "passed": value >= bound}
    return found


def check_gates(metrics: Measures, config: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """Judges every gate.

    Returns:
        By name: value, bound, passed.

    Raises:
        GateError: names every gate that does not hold, with its value and its bound.
    """
    gates = judge_gates(metrics, config)
    failed = [
        f"gate {name!r} ({LABELS[name]}): {gate['value']:.4g}, expected at least {gate['bound']:g}"
        for name, gate in gates.items()
        if not gate["passed"]
    ]
    if failed:
        raise GateError("; ".join(failed))
    return gates
