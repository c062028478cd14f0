"""The profile of the last local run: seconds, processor seconds and peak memory of every step.

Steps measure themselves (`components._step`). A step whose result came from the cache shows what it took when it ran.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from components import CPU_SECONDS, PEAK_MEGABYTES, WALL_SECONDS
from newfound.errors import ConfigError
from newfound.files import write_text
from pipelines.progress import duration, measures_of, title

FILE: Final = "profile.json"
_COLUMNS: Final = ("step", "time", "processor", "peak memory", "")


@dataclass(frozen=True)
class StepUsage:
    """Resources that one step took.

    Attributes:
        task: its name in the pipeline.
        wall_seconds: from its start to its end.
        cpu_seconds: of its process, and of those that it started.
        peak_megabytes: of its process's resident set.
        cached: whether the last run took its result from the cache.
    """

    task: str
    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    cached: bool


def usage_of(task: str, artifacts: dict[str, Path], cached: bool) -> StepUsage:
    """Reads a step's own measures of itself."""
    measures = measures_of(artifacts)
    taken = (float(measures.get(name, 0.0)) for name in (WALL_SECONDS, CPU_SECONDS, PEAK_MEGABYTES))
    return StepUsage(task, *taken, cached)


def write_profile(steps: list[StepUsage], runs: Path) -> None:
    """Keeps the profile of a run in its folder."""
    write_text(runs / FILE, json.dumps([asdict(step) for step in steps], indent=2))


def read_profile(runs: Path) -> list[StepUsage]:
    """The profile of the last run in a folder.

    Raises:
        ConfigError: nothing has run there.
    """
    file = runs / FILE
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; expected the folder of a local run (`--runs`)")
    listed: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [StepUsage(**one) for one in listed]


def profile_table(steps: list[StepUsage]) -> Table:
    """For the terminal: a row a step, and their sum."""
    table = Table(*_COLUMNS, title="What the steps took", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in _rows(steps):
        table.add_row(*row)
    table.columns[0].style = "bold"
    return table


def profile_section(steps: list[StepUsage]) -> str:
    """For the report: the same as a section of its page."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in _COLUMNS)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in _rows(steps)
    )
    return (
        '<section id="profile" aria-labelledby="profile-title"><h2 id="profile-title">What the steps took</h2>'
        "<p>Time, processor time and peak memory of every step of this run. A step from the cache shows what it took "
        f'when it ran.</p><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        "</section>"
    )


def write_report(evaluated: Path, steps: list[StepUsage], report: Path) -> None:
    """Writes the evaluation's page with the profile of the run that it belongs to.

    Args:
        evaluated: the page that the evaluation wrote.
        steps: of the run.
        report: the file to write.
    """
    page = evaluated.read_text(encoding="utf-8")
    before, end, after = page.rpartition("</main>")
    write_text(report, before + profile_section(steps) + end + after)


def _rows(steps: list[StepUsage]) -> list[tuple[str, str, str, str, str]]:
    rows = [
        (
            title(step.task),
            duration(step.wall_seconds),
            duration(step.cpu_seconds),
            f"{step.peak_megabytes:,.0f} MB",
            "cached" if step.cached else "",
        )
        for step in steps
    ]
    if steps:
        wall, cpu = (sum(getattr(step, name) for step in steps) for name in ("wall_seconds", "cpu_seconds"))
        peak = max(step.peak_megabytes for step in steps)
        rows.append(("all of them", duration(wall), duration(cpu), f"{peak:,.0f} MB", ""))
    return rows
