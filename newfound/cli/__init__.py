"""The command line: look at releases, tables and recommendations. Errors are one line; tracebacks are for bugs."""

from newfound.cli.app import app, main

__all__ = ["app", "main"]
