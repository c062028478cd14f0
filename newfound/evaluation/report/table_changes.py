"""A page of the report: what a new transition table answers otherwise than the one before it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from string import Template

from newfound.clusters import Clusters
from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import number, text
from newfound.files import write_text
from newfound.table.compare import TableDiff, compare_tables

Name = Callable[[str], str]
SHOWN = 200  # changed pairs listed


def write_changes(before: Path, after: Path, clusters: Path, page: Path) -> None:
    """Compares two table folders and writes the page.

    Args:
        before: the table that serves.
        after: the new one.
        clusters: of the new one, for its descriptions; an interest that it does not know is shown by its id.
        page: the HTML file.

    Raises:
        DataError: a file is missing or broken, or the tables share no context.
    """
    write_text(page, render_changes(compare_tables(before, after), Clusters.load(clusters)))


def render_changes(diff: TableDiff, clusters: Clusters) -> str:
    """The page as HTML, self-contained."""

    def name(node: str) -> str:
        return text(clusters.description_of(node) if node in clusters.index else node)

    sections = [
        ("spread", "How the best answers spread", _spread(diff)),
        ("labels", "Interests that answer now, or no more", _labels(diff, name)),
        ("pairs", "Pairs with another answer", _pairs(diff, name)),
    ]
    template = resources.files("newfound.evaluation.report").joinpath("template.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title="newfound: the table, before and after",
        header=_header(diff),
        contents="".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections),
        body="".join(
            f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}</section>'
            for key, title, body in sections
        ),
        footer="",
    )


def _header(diff: TableDiff) -> str:
    tiles = [
        (
            f"{diff.pairs_changed:.1%}",
            "pairs changed",
            f"{len(diff.changed):,} of {diff.contexts:,} have another answer",
        ),
        (number(diff.successor_jaccard), "successor Jaccard", "mean overlap of a pair's five best answers"),
        (f"{len(diff.labels_gained)}", "labels gained", "interests that became some pair's best answer"),
        (f"{len(diff.labels_lost)}", "labels lost", "interests that are no pair's best answer any more"),
    ]
    shown = "".join(
        f"<li><b>{value}</b><span>{label}</span><small>{below}</small></li>" for value, label, below in tiles
    )
    return (
        "<h1>The transition table, before and after</h1>"
        f'<p class="lead">{diff.contexts:,} pairs are in both tables; {diff.contexts_gained:,} are new, '
        f'{diff.contexts_lost:,} are gone.</p><ul class="tiles">{shown}</ul>'
    )


def _spread(diff: TableDiff) -> str:
    rows = [
        ["Gini of the answers", number(diff.gini_before), number(diff.gini_after)],
        ["Share of the most answered tenth", number(diff.head_share_before), number(diff.head_share_after)],
        ["Interests that answer any pair", f"{diff.coverage_before:.1%}", f"{diff.coverage_after:.1%}"],
    ]
    return charts.table(["Measure", "Before", "After"], rows, label="How the best answers spread")


def _labels(diff: TableDiff, name: Name) -> str:
    parts = []
    for title, nodes in (("Gained", diff.labels_gained), ("Lost", diff.labels_lost)):
        listed = "".join(f"<li>{name(node)}</li>" for node in nodes) or "<li>none</li>"
        parts.append(f"<div><h3>{title}</h3><ul>{listed}</ul></div>")
    return f"<div class='pair'>{''.join(parts)}</div>"


def _pairs(diff: TableDiff, name: Name) -> str:
    rows = [
        [" and ".join(f"“{name(node)}”" for node in context), name(old), name(new)]
        for context, old, new in diff.changed[:SHOWN]
    ]
    if not rows:
        return "<p>None.</p>"
    more = len(diff.changed) - len(rows)
    note = f"<p class='note'>The first {len(rows):,}; {more:,} more are not listed.</p>" if more else ""
    listing = charts.table(["After these interests", "Before", "After"], rows, label="Pairs with another answer")
    return f"{note}{listing}"
