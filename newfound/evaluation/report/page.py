"""`report.html`: one self-contained page, light, readable wide and narrow, in light and dark, without any asset.

The page is made of the findings alone (plain JSON, as `evaluate` writes them to `findings.json`), so it can be made
again without evaluating again. A part whose findings are absent is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import number, text
from newfound.evaluation.report.examples_section import map_section, slates_section, transitions_section
from newfound.evaluation.report.experiment_section import experiment_section
from newfound.evaluation.report.figures import Findings, interval_of, value_of
from newfound.evaluation.report.items_section import items_section
from newfound.evaluation.report.measures_section import measures_section
from newfound.evaluation.report.training_section import training_section


def write_report(findings: Findings, path: Path) -> None:
    """Writes the page."""
    path.write_text(render(findings), encoding="utf-8")


def render(findings: Findings) -> str:
    """The page as HTML."""
    sections = [
        ("measures", "The next new interest", measures_section(findings)),
        ("composed", "From interest to item", items_section(findings)),
        ("experiment", "The claim, in small", experiment_section(findings)),
        ("slates", "Slates, with reasons", slates_section(findings)),
        ("map", "The map of interests", map_section(findings)),
        ("transitions", "What follows what", transitions_section(findings)),
        ("training", "How it was trained", training_section(findings)),
        ("notes", "How to read this", _notes(findings)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    template = resources.files("newfound.evaluation.report").joinpath("template.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=f"newfound: {text(findings['dataset']['name'])}",
        header=_header(findings),
        contents="".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in shown),
        body="".join(
            f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}</section>'
            for key, title, body in shown
        ),
        footer=_footer(findings),
    )


def _header(findings: Findings) -> str:
    data = findings["dataset"]
    facts = "".join(f"<li>{text(label)} <b>{text(value)}</b></li>" for label, value in findings["facts"])
    passed = [gate.get("passed") for gate in findings["gates"]]
    if not passed or None in passed:
        verdict = "Not every gate could be judged."
    else:
        verdict = "All gates hold." if all(passed) else "A gate does not hold: nothing is published from this fit."
    gates = "".join(_gate(gate) for gate in findings["gates"])
    gates += "".join(
        f'<li class="flag"><strong>Flagged, not refused</strong>{text(flag)}</li>'
        for flag in findings.get("flags", {}).values()
    )
    return (
        f"<h1>{text(data['name'])}: new interests, put to the test</h1>"
        f'<p class="lead">{verdict} The figures are of test users, after the cut between past and future.</p>'
        f'<ul class="facts">{facts}</ul><ul class="gates">{gates}</ul>{_tiles(findings)}'
    )


def _gate(gate: Mapping[str, Any]) -> str:
    state = {True: "passed", False: "failed", None: "absent"}[gate.get("passed")]
    word = {"passed": "holds", "failed": "fails", "absent": "not judged"}[state]
    value = number(gate["value"]) if gate.get("value") is not None else "–"
    return (
        f'<li class="{state}"><strong>{text(gate["label"])}: {word}</strong>'
        f"{value}, at least {number(gate['bound'])} asked for</li>"
    )


def _tiles(findings: Findings) -> str:
    tiles: list[str] = []
    ours = next((method["key"] for method in findings["methods"]), "planner")

    def tile(key: str, label: str, below: str, digits: int = 3) -> None:
        if math.isfinite(value := value_of(findings, key)):
            tiles.append(f"<li><b>{number(value, digits)}</b><span>{text(label)}</span><small>{below}</small></li>")

    lift = interval_of(findings, f"{ours}.recall_over_chance")
    tile(f"{ours}.recall_over_chance", "NovelRecall@1 over chance", f"{findings['confidence']:.0%} interval {lift}", 1)
    recall = f"chance {number(value_of(findings, 'chance.novel_recall@10'))}"
    tile(f"{ours}.novel_recall@10", "NovelRecall@10", recall)
    direct = f"the ranker with a filter {number(value_of(findings, 'rival.ranker_direct.novel_hr@10'))}"
    tile("served.novel_hr@10", "NovelHR@10, as served", direct)
    tile("ranker.ndcg@10", "ranker NDCG@10", f"HR@10 {number(value_of(findings, 'ranker.hr@10'))}")
    return f'<ul class="tiles">{"".join(tiles)}</ul>' if tiles else ""


def _notes(findings: Findings) -> str:
    notes = "".join(f"<li>{text(note)}</li>" for note in findings["notes"])
    rows = [[text(key), number(value, 4)] for key, value in sorted(findings["metrics"].items())]
    listing = charts.table(["Measure", "Value"], rows, label="All measures")
    return (
        f"<ul class='notes'>{notes}</ul>"
        f"<details><summary>All {len(rows)} measures, as in metrics.json</summary>{listing}</details>"
    )


def _footer(findings: Findings) -> str:
    return "<br>".join(text(line) for line in findings.get("lineage", []))
