"""The section on items: the ranker alone, inside the right cluster, whole slates, what decides, and the quota."""

from __future__ import annotations

import math

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import Dot, Series, number, text
from newfound.evaluation.report.figures import Findings, dot_of, dots_of, interval_of, value_of


def items_section(findings: Findings) -> str:
    """The section as HTML; empty where nothing of it was found."""
    parts = []
    rankers = (("ranker", "Ranker", "ours"), ("baseline.markov", "Markov", "rival"),
               ("baseline.popular", "Most popular", "rival"))  # fmt: skip
    ndcg, hits = (
        [dot_of(findings, f"{key}.{measure}", label, kind) for key, label, kind in rankers]
        for measure in ("ndcg@10", "hr@10")
    )
    if any(math.isfinite(d.value) for d in ndcg):
        parts.append(
            "<h3>The ranker alone</h3><p class='note'>Leave one out: each user's first new item after the cut, all "
            "items ranked, consumed ones filtered.</p><div class='pair'>"
            + charts.dot_plot("NDCG@10", ndcg)
            + charts.dot_plot("HR@10", hits)
            + "</div>"
        )
    inside = value_of(findings, "ranker.given_cluster.hr@10")
    if math.isfinite(inside):
        parts.append(
            "<h3>Inside the right cluster</h3><p>Given the true new cluster, the ranker has the very item among its "
            f"first ten in <b>{number(inside)}</b> of cases "
            f"({interval_of(findings, 'ranker.given_cluster.hr@10')}) and "
            f"first in <b>{number(value_of(findings, 'ranker.given_cluster.hr@1'))}</b>; chance is "
            f"{number(value_of(findings, 'chance.given_cluster.hr@10'))} and "
            f"{number(value_of(findings, 'chance.given_cluster.hr@1'))}.</p>"
        )
    whole = []
    for measure, label in (("novel_hr@10", "NovelHR@10"), ("novel_ndcg@10", "NovelNDCG@10")):
        dots = [*_whole_slates(findings, measure), *dots_of(findings, "all", measure)]
        dots = [dot for dot in dots if math.isfinite(dot.value)]
        whole.append(charts.dot_plot(label, [Dot(d.label, d.value, d.lower, d.upper, d.kind) for d in dots]))
    if any(whole):
        parts.append(
            "<h3>End to end</h3><p class='note'>Is the first item that the user liked in a new cluster on a slate "
            "of ten? As served, planner and ranker decide together, drawn at the temperature that serves. Of the "
            "others each names clusters, and the same ranker fills the slate from them.</p>"
            f"<div class='pair'>{''.join(whole)}</div>{_decision(findings)}"
        )
    parts.append(_quota(findings))
    return "".join(parts)


def _whole_slates(findings: Findings, measure: str) -> list[Dot]:
    """The served slate and the ranker with a mere filter."""
    shown = (("served", "As served", "ours"), ("rival.ranker_direct", "Ranker, never-consumed items", "rival"))
    return [dot_of(findings, f"{key}.{measure}", label, kind) for key, label, kind in shown]


def _decision(findings: Findings) -> str:
    """Weights of planner and ranker in the one decision."""
    decision = findings.get("decision") or {}
    if not decision.get("intervals"):
        return ""
    full = decision["full"]
    weights = {**full["items"], **full["clusters"], "dissimilarity": full["dissimilarity"]}
    rows = [
        [text(name), number(weights[name]), f"{number(low)} to {number(high)}"]
        for name, (low, high) in decision["intervals"].items()
    ]
    fitted = decision["fitted"]
    behind = f"{fitted['moments']:,} choices of {fitted['users']:,} users"
    note = f"Fitted on {behind} after the cut, none of them a test user."
    return (
        f"<h3>What decides</h3><p class='note'>{text(note)}</p>"
        f"{charts.table(['Term', 'Weight', 'Interval'], rows, label='Weights of the decision')}"
    )


def _quota(findings: Findings) -> str:
    quota = findings.get("quota")
    if not quota:
        return ""
    x = list(range(len(quota["hr"])))
    new, known = Series("opened a new cluster", x, quota["novel"]), Series("familiar cluster", x, quota["familiar"])
    figures = [
        charts.line_chart(title, series, "novel slots of ten", "in the slate", from_zero=True)
        for title, series in (
            ("The next liked item, whatever its cluster", [Series("hit rate", x, quota["hr"])]),
            ("The same, by what the item was", [new, known]),
        )
    ]
    return (
        f"<h3>What novelty costs, and what it finds</h3><div class='pair'>{''.join(figures)}</div>"
        f"<p class='note'>{quota['events']:,} liked items; {quota['novel_share']:.0%} opened a new cluster.</p>"
    )
