"""The end of the pipelines' command lines: an error is one line, and exit status 1."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from newfound.errors import NewfoundError


def run_main(app: typer.Typer) -> None:
    """Runs a command line; an error raised on purpose becomes a message and exit status 1."""
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
