"""The section on the next new interest: the planner and its baselines, by slice, in breadth, and how each was tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import number, text
from newfound.evaluation.report.figures import Findings, dots_of, value_of

SLICES = {
    "all": "All moments",
    "held_out": "Held-out pairs",
    "sampled": "Contexts drawn as serving draws them",
    "light": "Light users",
    "heavy": "Heavy users",
}


def measures_section(findings: Findings) -> str:
    """The section as HTML; empty without methods."""
    if not findings["methods"]:
        return ""
    parts = [
        "<p>At each moment at which a test user liked something in a cluster that they had never consumed, every "
        "method ranks the clusters that are still new to them. The dots say how often the right one comes first, or "
        f"among the first ten; the bars are {findings['confidence']:.0%} intervals over users, the dotted mark is "
        "chance.</p>"
    ]
    others: list[str] = []
    for key, label in SLICES.items():
        size = next((s for s in findings["slices"] if s["key"] == key), None)
        if not size or not size["events"]:
            continue
        both = "".join(
            charts.dot_plot(f"NovelRecall@{k}", dots_of(findings, key, f"novel_recall@{k}")) for k in (1, 10)
        )
        title = f"<h3>{text(label)} <small>{size['events']:,} moments of {size['users']:,} users</small></h3>"
        note = f"<p class='note'>{text(size['note'])}</p>" if size.get("note") else ""
        (parts if key in ("all", "held_out") else others).append(f"{title}{note}<div class='pair'>{both}</div>")
    if others:
        names = "contexts as drawn in serving, light and heavy users"
        parts.append(f"<details><summary>Other slices: {names}</summary>{''.join(others)}</details>")
    parts.append(_breadth(findings))
    return "".join(parts)


BREADTH = {
    "novel_recall@1": "Recall@1",
    "novel_recall@10": "Recall@10",
    "mrr": "MRR",
    "macro_recall@10": "Macro recall@10",
    "label_coverage": "Coverage",
    "gini": "Gini",
    "normalised_entropy": "Entropy",
    "leak": "Leak",
}


def _breadth(findings: Findings) -> str:
    rows = [
        [text(method["label"]), *(number(value_of(findings, f"{method['key']}.{measure}")) for measure in BREADTH)]
        for method in findings["methods"]
    ]
    strong = [method["kind"] == "ours" for method in findings["methods"]]
    parts = [
        "<h3>Accuracy beside breadth</h3><p class='note'>Coverage: share of all clusters that are anyone's first "
        "answer. Gini and entropy: how evenly the first answers spread. Leak: share of the ten best raw answers that "
        "the user already knew. Macro recall: every tenth of the clusters, from rare to frequent, weighs the same.</p>",
        charts.table(["Method", *BREADTH.values()], rows, strong=strong, label="Measures of every method"),
    ]
    deciles = findings.get("deciles", {})
    lines = [
        charts.Series(
            method["label"], list(range(1, 11)), [math.nan if v is None else v for v in deciles[method["key"]]]
        )
        for method in findings["methods"]
        if method["key"] in deciles
    ]
    if lines:
        parts.append(
            charts.line_chart(
                "Recall@10 from rare to frequent clusters", lines, "decile of the label's frequency", "macro recall@10",
                from_zero=True,
            )
        )  # fmt: skip
    chosen = [
        [text(method["label"]), text(method.get("sees", "")), text(_settings(method.get("chosen", {})))]
        for method in findings["methods"]
    ]
    tuned = charts.table(["Method", "Learns from", "Chosen on validation users"], chosen, label="How each was tuned")
    parts.append(f"<details><summary>What each method sees, and how it was tuned</summary>{tuned}</details>")
    return "".join(parts)


def _settings(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in chosen.items()
    )
