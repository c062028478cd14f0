"""The section on the small experiment: the planner beside pair frequency, on both halves of the claim."""

from __future__ import annotations

import math

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import number, text
from newfound.evaluation.report.figures import Findings, dot_of, value_of

HALVES = {
    "found": ("Found", "Chosen from all new interests: the share that the person came to like after the cut."),
    "liked": (
        "Liked",
        "Chosen from the new interests that the person met after the cut: the share whose first event was positive. "
        "What an older system showed often is no advantage here.",
    ),
}
ARMS = (
    ("planner", "Planner", "ours"),
    ("pair_frequency", "Pair frequency", "rival"),
    ("chance", "Blind choice", "chance"),
)


def experiment_section(findings: Findings) -> str:
    """The section as HTML; empty where nothing was compared."""
    plots = [_half(findings, half) for half in HALVES]
    if not any(plots):
        return ""
    flags = findings.get("flags", {})
    verdicts = "".join(f"<p><b>Flag:</b> {text(flag)}.</p>" for flag in flags.values())
    if not flags:
        verdicts = "<p>No flag: the planner finds more than pair frequency, and is not shown to be liked less.</p>"
    return (
        "<p>Everybody stands at the cut. Round by round, five at most, the planner and pair frequency each choose an "
        "interest that is new to the person, and what is liked joins the history that the next choice is made from. "
        "What the person did after the cut answers. A flag refuses nothing.</p>"
        f"{verdicts}<div class='pair'>{''.join(plots)}</div>"
    )


def _half(findings: Findings, half: str) -> str:
    label, note = HALVES[half]
    if not math.isfinite(value_of(findings, f"experiment.planner.{half}")):
        return ""
    dots = [dot_of(findings, f"experiment.{arm}.{half}", name, kind) for arm, name, kind in ARMS]
    choices, people = (int(value_of(findings, f"experiment.{name}.{half}")) for name in ("choices", "people"))
    key = f"experiment.planner.minus.pair_frequency.{half}"
    value, lower, upper = (number(value_of(findings, f"{key}{end}"), 4) for end in ("", ".lower", ".upper"))
    return (
        f"<div><h3>{label} <small>{choices:,} choices of {people:,} people</small></h3><p class='note'>{note}</p>"
        f"{charts.dot_plot(f'Share of choices, {label.lower()}', dots)}"
        f"<p>Planner minus pair frequency, paired: <b>{value}</b> ({lower} to {upper}, "
        f"{findings['confidence']:.0%} interval over people).</p></div>"
    )
