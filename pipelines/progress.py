"""The progress of a local run in the terminal: the step that runs, its time, and its main figure.

kfp reports to stdout in lines of its own among everything that the steps print. `Narrator` stands in for stdout,
takes those lines apart, shows the few that matter, and keeps everything in one log file a step.
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

from components import ERROR_LOGGER
from pipelines.cache import find_entry

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_KFP = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - [A-Z]+ - (?P<message>.*)")
_STARTED = re.compile(r"Executing task '(?P<task>[^']+)'")
_FINISHED = re.compile(r"Task '(?P<task>[^']+)' finished with status (?P<status>[A-Z]+)")
_CACHED = re.compile(r"Task (?P<task>\S+) cache hit \(key=(?P<key>[0-9a-f]+)\)")
_LIBRARY = re.compile(r"(?P<level>INFO|WARNING|ERROR) (?P<logger>newfound[.\w]*): (?P<message>.*)")
_REFIT = re.compile(r"-2$")

# The figure that matters, from a step's measures; the first line whose names are all there.
FIGURES: Final = {
    "load-interactions": ["{users:,} users, {items:,} items, {interactions:,} interactions"],
    "write-features": ["{rows:,} rows of {users:,} users"],
    "fetch-histories": ["{users:,} users, {events:,} events"],
    "build-clusters": ["{clusters:,} interests over {items:,} items"],
    "mine-transitions": ["{transitions:,} novel transitions, {balanced_samples:,} samples"],
    "finetune-planner": [
        "validation recall@1 {validation_novel_recall@1:.3f} (chance {validation_chance@1:.3f}), match {match_rate:.3f}"
    ],
    "build-table": ["{contexts:,} contexts, {contexts_per_second:,.0f} a second", "{contexts:,} contexts"],
    "tune-ranker": ["{trials} trials, the best with NDCG@10 {validation.ndcg@10:.4f}"],
    "train-ranker": ["validation NDCG@10 {validation.ndcg@10:.4f}, HR@10 {validation.hr@10:.4f}"],
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
        work: kfp's pipeline root.
        cache: kfp's cache folder.
        logs: folder for one file a step.
        total: steps of the pipeline.
        on_done: called with the task's name and its artifacts (by name, with `uri` and `metadata`).

    Attributes:
        failed: the task that failed, or None.
        reason: the message of the library that it failed with, where there was one.
    """

    def __init__(
        self,
        console: Console,
        *,
        work: Path,
        cache: Path,
        logs: Path,
        total: int,
        on_done: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._console, self._work, self._cache, self._logs = console, work, cache, logs
        self._total, self._on_done = total, on_done
        self._count, self._pending = 0, ""
        self._task: str | None = None
        self._spinner: Progress | None = None
        self._since = 0.0
        self._log: io.TextIOBase | None = None
        self.failed: str | None = None
        self.reason: str | None = None

    def writable(self) -> bool:
        """It can be written to, and nothing else."""
        return True

    def write(self, text: str) -> int:
        """Takes whatever was printed, and tells whole lines."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            self._tell(_COLOUR.sub("", line))
        return len(text)

    def tell_record(self, message: str) -> None:
        """Takes what kfp logs outside of its own log context: that a task was cached."""
        if match := _CACHED.search(message):
            self._count += 1
            artifacts = find_entry(self._cache, match["key"])
            self._say("[green]✓[/]", match["task"], "cached", artifacts)

    def close(self) -> None:
        """Stops telling; a step that still runs was interrupted."""
        self._end()
        super().close()

    def log_of(self, task: str) -> Path:
        """Where everything is that a task printed."""
        return self._logs / f"{task}.log"

    def _tell(self, line: str) -> None:
        if kfp := _KFP.match(line):
            if started := _STARTED.search(kfp["message"]):
                self._begin(started["task"])
            elif finished := _FINISHED.search(kfp["message"]):
                self._finish(finished["task"], finished["status"] == "SUCCESS")
            return
        if self._log is None:
            return
        line = line.removeprefix("    ").rstrip()  # kfp indents what steps print
        self._log.write(line + "\n")
        if (match := _LIBRARY.fullmatch(line)) and match["logger"] != ERROR_LOGGER:
            style = "yellow" if match["level"] != "INFO" else "dim"
            self._print(f"      [{style}]{escape(match['message'])}[/]")
        elif match:
            self.reason = match["message"]

    def _begin(self, task: str) -> None:
        self._count += 1
        self._task, self._since = task, time.perf_counter()
        self._logs.mkdir(parents=True, exist_ok=True)
        self._log = self.log_of(task).open("w", encoding="utf-8", buffering=1)
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

    def _finish(self, task: str, well: bool) -> None:
        seconds = time.perf_counter() - self._since
        self._end()
        if well:
            self._say("[green]✓[/]", task, duration(seconds), self._outputs_of(task))
        else:
            self.failed = task
            self._say("[red]✗[/]", task, duration(seconds), {})

    def _end(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        if self._log is not None:
            self._log.close()
            self._log = None
        self._task = None

    def _say(self, mark: str, task: str, took: str, artifacts: dict[str, Any]) -> None:
        figure = escape(figure_of(task, artifacts))
        self._print(f"{mark} {self._number()} {title(task):<26}{took:>12}  {figure}")
        if artifacts:
            self._on_done(task, artifacts)

    def _print(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=True)

    def _number(self) -> str:
        return f"{self._count:>2}/{self._total}"

    def _outputs_of(self, task: str) -> dict[str, Any]:
        # The newest run's folder: names carry the time.
        record = max(self._work.glob(f"*/{task}/executor_output.json"))
        artifacts = json.loads(record.read_text(encoding="utf-8")).get("artifacts", {})
        return {name: listed["artifacts"][0] for name, listed in artifacts.items()}


def title(task: str) -> str:
    """A task's name for people: the second of two is the refit."""
    return _REFIT.sub(" (refit)", task).replace("-", " ")


def duration(seconds: float) -> str:
    """Seconds under two minutes, minutes and seconds from there on."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def figure_of(task: str, artifacts: dict[str, Any]) -> str:
    """One line on what a step came to."""
    path = Path(artifacts["metrics"]["uri"]) if "metrics" in artifacts else None
    if path is None or not path.is_file():
        return ""
    measures = json.loads(path.read_text(encoding="utf-8"))
    for line in FIGURES.get(_REFIT.sub("", task), []):
        if all(name in measures for name, _ in _FIELD.findall(line)):
            return _FIELD.sub(lambda field: format(measures[field[1]], field[2] or ""), line)
    shown = [(name, value) for name, value in measures.items() if isinstance(value, int | float)][:3]
    return ", ".join(f"{name} {value:{',.4g' if isinstance(value, float) else ','}}" for name, value in shown)
