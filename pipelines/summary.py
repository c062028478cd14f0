"""The end of a run: the measures beside chance and the rivals, and where everything is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newfound.release.store import manifest_of
from pipelines.local import Run

Measures = Mapping[str, Any]

# Title, and the end of the measure's key; the beginning says who was measured.
INTERESTS: Final = (
    ("NovelRecall@1", "novel_recall@1"),
    ("NovelRecall@10", "novel_recall@10"),
    ("MRR", "mrr"),
    ("NovelHR@10", "novel_hr@10"),
)
ITEMS: Final = (("HR@10", "hr@10"), ("NDCG@10", "ndcg@10"))


def show_summary(run: Run, *, runs: Path, releases: str, console: Console) -> None:
    """Prints the tables and the places."""
    file = run.artifacts["evaluation"] / "metrics.json"
    measures = json.loads(file.read_text(encoding="utf-8"))
    ours = [who for who in ("planner", "table") if f"{who}.novel_recall@1" in measures]
    console.print()
    console.print(
        comparison("The next new interest", measures, INTERESTS, [*ours, *owners(measures, "rival"), "chance"])
    )
    console.print(comparison("The next item", measures, ITEMS, ["ranker", *owners(measures, "baseline")]))
    for name, gate in json.loads(run.artifacts["gates"].read_text(encoding="utf-8")).items():
        console.print(f"gate {name.replace('_', ' ')}: {gate['value']:.3g}, at least {gate['bound']:g} was asked for")
    for flag in manifest_of(releases, run.release).flags.values():
        console.print(f"[yellow]flagged:[/] {escape(flag)}", soft_wrap=True)
    console.print(f"report:  {escape(str(runs / 'evaluation' / 'report.html'))}", soft_wrap=True)
    console.print(f"release: {escape(releases)}/{run.release}", soft_wrap=True)


def owners(measures: Measures, kind: str) -> list[str]:
    """Everyone of a kind (`rival`, `baseline`) that was measured, in alphabetical order."""
    return sorted({".".join(key.split(".")[:2]) for key in measures if key.startswith(f"{kind}.")})


def comparison(title: str, measures: Measures, kinds: Iterable[tuple[str, str]], rows: Iterable[str]) -> Table:
    """A table with a row for everyone who was measured and a column a measure; an empty cell was not measured."""
    rows = list(rows)
    shown = [(name, end) for name, end in kinds if any(f"{who}.{end}" in measures for who in rows)]
    table = Table("", *(name for name, _ in shown), title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for place, who in enumerate(rows):
        values = (measures.get(f"{who}.{end}") for _, end in shown)
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        name = who.removeprefix("rival.").removeprefix("baseline.").replace("_", " ")
        table.add_row(escape(name), *cells, style="bold" if place == 0 else None)
    return table
