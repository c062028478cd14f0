"""The progress of a local run in the terminal: the step that runs, its time, and its main figure.

Steps say in lines of JSON when they start and end (`components._step`). `Narrator` stands in for stdout, heeds those
lines, shows what the library logs between them, and keeps everything in one log file a step. Of kfp itself it reads one
log record: that a task came from the cache, where no step runs that could say so.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from components import EVENT, WALL_SECONDS
from pipelines.cache import find_entry

_CACHED = re.compile(r"Task (?P<task>\S+) cache hit \(key=(?P<key>[0-9a-f]+)\)")
_LIBRARY = re.compile(r"(?P<level>INFO|WARNING|ERROR) (?P<logger>newfound[.\w]*): (?P<message>.*)")
_REFIT = re.compile(r"-2$")

INDENT: Final = "    "  # kfp indents what steps print
OUTSIDE_OF_STEPS: Final = "run"  # the log of what is printed while no step runs

# The figure that matters, from a step's measures; the first line whose names are all there.
FIGURES: Final = {
    "load-interactions": ["{users:,} users, {items:,} items, {interactions:,} interactions"],
    "write-features": ["{rows:,} rows of {users:,} users"],
    "fetch-histories": ["{users:,} users, {events:,} events"],
    "build-clusters": ["{clusters:,} interests over {items:,} items"],
    "mine-transitions": ["{transitions:,} novel transitions, {balanced_samples:,} samples"],
    "finetune-planner": [
        "validation recall@1 {validation_novel_recall@1:.3f} (chance {validation_chance@1:.3f}), "
        "match {match_rate:.3f}",
        "{contexts:,} contexts, match {match_rate:.3f}",
    ],
    "build-table": ["{contexts:,} contexts, {contexts_per_second:,.0f} a second", "{contexts:,} contexts"],
    "tune-ranker": ["{trials} trials, the best with NDCG@10 {validation.ndcg@10:.4f}"],
    "train-ranker": [
        "validation NDCG@10 {validation.ndcg@10:.4f}, HR@10 {validation.hr@10:.4f}",
        "{epoch} epochs, as measured",
    ],
    "run-experiment": [
        "planner minus pair frequency, found a choice {planner.minus.pair_frequency.found:+.4f} "
        "[{planner.minus.pair_frequency.found.lower:+.4f}, {planner.minus.pair_frequency.found.upper:+.4f}]",
    ],
    "evaluate": [
        "NovelRecall@1 {planner.novel_recall@1:.4f} (chance {chance.novel_recall@1:.4f})",
        "NovelRecall@1 {table.novel_recall@1:.4f} (chance {chance.novel_recall@1:.4f})",
    ],
    "check-gates": [
        "NovelRecall@1 over chance {recall_over_chance.value:.2f}, at least {recall_over_chance.bound:g}; "
        "match rate {match_rate.value:.3f}, at least {match_rate.bound:g}",
        "NovelRecall@1 over chance {recall_over_chance.value:.2f}, at least {recall_over_chance.bound:g}",
    ],
    "publish-release": ["{release}, {megabytes:,.0f} MB"],
    "publish-interests": ["{users:,} users"],
}
_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


class Narrator(io.TextIOBase):
    """A text stream that tells the run that is printed to it.

    Args:
        console: where to tell it; must not write to the stdout that this object stands in for.
        cache: kfp's cache folder.
        logs: folder for one file a step.
        total: steps of the pipeline.
        on_done: called with the task's name, its artifacts' paths by name, and whether they come from the cache.

    Attributes:
        failed: the task that failed, or None.
        reason: the message of the library that it failed with, where there was one.
    """

    def __init__(
        self,
        console: Console,
        *,
        cache: Path,
        logs: Path,
        total: int,
        on_done: Callable[[str, dict[str, Path], bool], None],
    ) -> None:
        self._console, self._cache, self._logs = console, cache, logs
        self._total, self._on_done = total, on_done
        self._count, self._pending = 0, ""
        self._task: str | None = None
        self._spinner: Progress | None = None
        logs.mkdir(parents=True, exist_ok=True)
        self._log = self._outside = self._open(OUTSIDE_OF_STEPS)
        self._since = time.perf_counter()
        self.failed: str | None = None
        self.reason: str | None = None

    def writable(self) -> bool:
        """It can be written to, and nothing else."""
        return True

    def write(self, text: str) -> int:
        """Takes whatever was printed, and tells whole lines."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            if line.startswith(INDENT):
                self._tell(line.removeprefix(INDENT).rstrip())
            else:
                self._outside.write(line + "\n")
        return len(text)

    def tell_record(self, message: str) -> None:
        """Takes what kfp logs: that a task was cached."""
        if match := _CACHED.search(message):
            self._count += 1
            found = find_entry(self._cache, match["key"])
            artifacts = {name: Path(artifact["uri"]) for name, artifact in found.items()}
            self._say("[green]✓[/]", match["task"], "cached", artifacts)
            self._on_done(match["task"], artifacts, True)

    def fail(self) -> None:
        """The run failed; where no step has said so, it is the one that was at work."""
        self.failed = self.failed or self._task or OUTSIDE_OF_STEPS
        self._stop_spinning()
        self._say("[red]✗[/]", self.failed, duration(time.perf_counter() - self._since), {})

    def close(self) -> None:
        """Stops telling; a step that still runs was interrupted."""
        self._stop_spinning()
        for log in (self._log, self._outside):
            log.close()
        super().close()

    def log_of(self, task: str) -> Path:
        """File of everything that a task printed."""
        return self._logs / f"{task}.log"

    def _tell(self, line: str) -> None:
        if event := _event(line):
            self._heed(event)
            return
        self._log.write(line + "\n")
        if match := _LIBRARY.fullmatch(line):
            style = "yellow" if match["level"] != "INFO" else "dim"
            self._print(f"      [{style}]{escape(match['message'])}[/]")

    def _heed(self, event: dict[str, Any]) -> None:
        task = Path(event["folder"]).name
        if event[EVENT] == "started":
            self._begin(task)
        elif event[EVENT] == "failed":
            self.failed, self.reason = task, event["reason"]
        else:
            self._finish(task, {name: Path(path) for name, path in event["artifacts"].items()})

    def _begin(self, task: str) -> None:
        self._count += 1
        self._task, self._since = task, time.perf_counter()
        self._log = self._open(task)
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            # The narrator itself stands in for stdout already.
            self._spinner = Progress(
                *columns, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._spinner.add_task(f"{self._number()} {title(task)}", total=None)
            self._spinner.start()
        else:
            self._print(f"[bold]→[/] {self._number()} {title(task)}")

    def _finish(self, task: str, artifacts: dict[str, Path]) -> None:
        self._stop_spinning()
        self._say("[green]✓[/]", task, duration(float(measures_of(artifacts)[WALL_SECONDS])), artifacts)
        self._on_done(task, artifacts, False)
        self._log.close()
        self._log, self._task = self._outside, None

    def _stop_spinning(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _open(self, task: str) -> io.TextIOWrapper:
        return self.log_of(task).open("w", encoding="utf-8", buffering=1)

    def _say(self, mark: str, task: str, took: str, artifacts: dict[str, Path]) -> None:
        figure = escape(figure_of(task, artifacts))
        self._print(f"{mark} {self._number()} {title(task):<26}{took:>12}  {figure}")

    def _print(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=True)

    def _number(self) -> str:
        return f"{self._count:>2}/{self._total}"


def _event(line: str) -> dict[str, Any] | None:
    """A step's own record, if this line is one."""
    if not line.startswith(f'{{"{EVENT}": '):
        return None
    told: dict[str, Any] = json.loads(line)
    return told


def title(task: str) -> str:
    """A task's name for people: the second of two is the refit."""
    return _REFIT.sub(" (refit)", task).replace("-", " ")


def duration(seconds: float) -> str:
    """Seconds under two minutes, minutes and seconds from there on."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def measures_of(artifacts: dict[str, Path]) -> dict[str, Any]:
    """A step's measures by name."""
    path = artifacts.get("metrics")
    if path is None or not path.is_file():
        return {}
    measures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return measures


def figure_of(task: str, artifacts: dict[str, Path]) -> str:
    """One line on what a step came to."""
    measures = {name: value for name, value in measures_of(artifacts).items() if not name.startswith("step.")}
    for line in FIGURES.get(_REFIT.sub("", task), []):
        if all(name in measures for name, _ in _FIELD.findall(line)):
            return _FIELD.sub(lambda field: format(measures[field[1]], field[2] or ""), line)
    shown = [(name, value) for name, value in measures.items() if isinstance(value, int | float)][:3]
    return ", ".join(f"{name} {value:{',.4g' if isinstance(value, float) else ','}}" for name, value in shown)
