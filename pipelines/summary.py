"""The end of a run: the measures beside chance and the rivals, and where everything is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.local import Run

Measures = Mapping[str, Any]

# Title, and the end of the measure's key; the beginning says who was measured.
PLANNERS: Final = (("NovelRecall@1", "novel_recall@1"), ("NovelRecall@10", "novel_recall@10"), ("MRR", "mrr"))
RANKERS: Final = (("HR@10", "hr@10"), ("NDCG@10", "ndcg@10"))


def show_summary(run: Run, *, runs: Path, releases: str, console: Console) -> None:
    """Prints the tables and the places."""
    file = run.artifacts["evaluation"] / "metrics.json"
    measures = json.loads(file.read_text(encoding="utf-8"))
    rivals = [who for who in owners(measures, PLANNERS) if who.startswith("rival.")]
    console.print()
    console.print(comparison("The next new interest", measures, PLANNERS, ["planner", *rivals, "chance"]))
    baselines = [who for who in owners(measures, RANKERS) if who.startswith("baseline.")]
    console.print(comparison("The next item", measures, RANKERS, ["ranker", *baselines]))
    for title, key in (("match rate, free decoding", "planner.match_rate"), ("end to end, NovelHR@10", "novel_hr@10")):
        if key in measures:
            console.print(f"{title}: [bold]{measures[key]:.3f}[/]")
    console.print(f"report:  {escape(str(runs / 'evaluation' / 'report.html'))}")
    console.print(f"release: {escape(releases)}/{run.release}")


def owners(measures: Measures, kinds: Iterable[tuple[str, str]]) -> list[str]:
    """Who was measured in any of these kinds, in alphabetical order."""
    return sorted({key.removesuffix(f".{end}") for _, end in kinds for key in measures if key.endswith(f".{end}")})


def comparison(title: str, measures: Measures, kinds: Iterable[tuple[str, str]], rows: Iterable[str]) -> Table:
    """A table with a row for everyone who was measured and a column a measure, best first but for the first row."""
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
