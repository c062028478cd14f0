"""The section on training: curves of what was learned, and the search for the ranker's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import Series, number, text
from newfound.evaluation.report.figures import Findings


def _curves(records: Sequence[Mapping[str, Any]], x: str, names: Mapping[str, str]) -> list[Series]:
    found = []
    for key, label in names.items():
        points = [(r[x], r[key]) for r in records if isinstance(r.get(key), int | float) and x in r]
        if points:
            found.append(Series(label, [float(p[0]) for p in points], [float(p[1]) for p in points], len(points) <= 60))
    return found


def training_section(findings: Findings) -> str:
    """The section as HTML; empty where nothing was recorded."""
    parts = []
    for training in findings.get("training", []):
        figures = "".join(
            charts.line_chart(
                chart["title"], _curves(training["curve"], training["x"], chart["series"]), training["x"], chart["unit"]
            )
            for chart in training["charts"]
        )
        if figures:
            note = f"<p class='note'>{text(training['note'])}</p>" if training.get("note") else ""
            parts.append(f"<h3>{text(training['title'])}</h3>{note}<div class='pair'>{figures}</div>")
    parts.append(_tuning(findings))
    return "".join(parts)


def _tuning(findings: Findings) -> str:
    trials = findings.get("tuning", [])
    values = [t for t in trials if isinstance(t.get("value"), int | float)]
    if not values:
        return ""
    best, best_so_far = -math.inf, []
    for trial in values:
        best = max(best, trial["value"])
        best_so_far.append(best)
    x = [float(t["number"]) for t in values]
    series = [
        Series("trial", x, [t["value"] for t in values], line=False),
        Series("best so far", x, best_so_far, points=False),
    ]
    names = sorted({name for t in trials for name in t["params"]})
    rows = [
        [
            f"Trial {t['number']}",
            number(t.get("value"), 4),
            text(t["state"]),
            *(text(f"{v:.3g}" if isinstance(v := t["params"].get(name, ""), float) else v) for name in names),
        ]
        for t in trials
    ]
    listing = charts.table(["Trial", "NDCG@10", "State", *names], rows, label="Trials of the ranker's tuning")
    found = charts.line_chart("Optuna's search over the ranker", series, "trial", "validation NDCG@10")
    curves = [
        Series(f"trial {t['number']}", [float(e) for e in range(1, len(t["curve"]) + 1)], t["curve"])
        for t in trials
        if t.get("curve")
    ]
    courses = (
        charts.line_chart("Each trial's course", curves, "epoch", "validation NDCG@10") if len(curves) <= 6 else ""
    )
    return f"<h3>Tuning the ranker</h3><div class='pair'>{found}{courses}</div>{listing}"
