"""The command line's arguments and tables: spans, moments, the store that the environment names, reports as text."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitoring.settings import STORE, secret_key
from monitoring.store.database import Store

if TYPE_CHECKING:
    from monitoring.report.job import WindowReport
    from monitoring.users.ledger import Outcome

OUT: Final = Path("runs/monitoring")
console: Final = Console(highlight=False)
_UNITS: Final = {"h": 3600, "d": 86_400}
_DAYS: Final = ("impressions", "novelty_ratio", "novel_positive_rate", "familiar_positive_rate", "ueuc", "drift_share")


def span(text: str) -> timedelta:
    """A number of hours or days, such as `6h`.

    Raises:
        typer.BadParameter: it is neither.
    """
    match = re.fullmatch(r"(\d+)([hd])", text)
    if not match or match.group(1) == "0":
        raise typer.BadParameter(f"{text!r}: expected a number of hours or days, such as 6h or 1d")
    return timedelta(seconds=int(match.group(1)) * _UNITS[match.group(2)])


def moment(text: str | None, window: timedelta) -> datetime:
    """The given moment, or the end of the last whole window.

    Raises:
        typer.BadParameter: it is no ISO time.
    """
    if text is None:
        seconds = window.total_seconds()
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() // seconds * seconds, UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected an ISO time, such as 2026-03-01T00:00:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def open_store() -> Store:
    """The store of events that NEWFOUND_STORE names, sqlite below `runs/monitoring` by default."""
    url = os.environ.get(STORE, f"sqlite:///{OUT}/events.db")
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return Store(url, secret_key(os.environ))


def print_report(report: WindowReport, *, measures: bool) -> None:
    """Prints a window's checks, and its measures if asked for."""
    if measures:
        table = Table("measure", "value", title=f"{report.start:%Y-%m-%d %H:%M} to {report.stop:%Y-%m-%d %H:%M} UTC")
        for name, value in report.measures.items():
            if not name.startswith("reason_share."):
                table.add_row(escape(name), "-" if value is None else f"{value:.4g}")
        console.print(table)
    for check in report.checks:
        mark = "[green]holds[/]" if check.passed else "[bold red]broken[/]"
        console.print(f"{report.stop:%Y-%m-%d %H:%M} {mark} {escape(str(check))}")


def print_days(reports: Sequence[WindowReport]) -> None:
    """Prints a line a day."""
    table = Table("day", *(name.replace("_", " ") for name in _DAYS), "broken bounds")
    for report in reports:
        values = [report.measures.get(name) for name in _DAYS]
        cells = ["-" if v is None else f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in values]
        broken = ", ".join(check.name.replace("_", " ") for check in report.failed)
        table.add_row(f"{report.start:%m-%d}", *cells, broken)
    console.print(table)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Prints a line a place of an erasure."""
    for outcome in outcomes:
        found = f"[bold red]failed[/]: {escape(outcome.failed)}" if outcome.failed else f"{outcome.removed} removed"
        console.print(f"{escape(outcome.place)}: {found}", soft_wrap=True)
