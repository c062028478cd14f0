"""Errors that a person can act on: each says where, what was found and what was expected."""

from __future__ import annotations


class NewfoundError(Exception):
    """Base of every error that newfound raises on purpose; the command line prints it without a traceback."""


class ConfigError(NewfoundError):
    """A configuration file or value that cannot be used; the message names the file and the key."""


class DataError(NewfoundError):
    """Input that breaks its contract.

    Args:
        source: file (or table) that holds the offending value.
        problem: what was found.
        expected: what would have been right.
        column: offending column, where there is one.
        row: first offending data row, counted from 1 without the header, where there is one.
    """

    def __init__(
        self,
        source: str,
        problem: str,
        *,
        expected: str,
        column: str | None = None,
        row: int | None = None,
    ) -> None:
        self.source, self.problem, self.expected = source, problem, expected
        self.column, self.row = column, row
        where = source
        if column is not None:
            where += f", column {column!r}"
        if row is not None:
            where += f", row {row}"
        super().__init__(f"{where}: {problem}; expected {expected}")


class OutputError(NewfoundError):
    """A place that must not be written to; the message names it, and what was expected there."""


class ReleaseError(NewfoundError):
    """A release that must not be served or published; the message names the file."""


class GateError(NewfoundError):
    """A quality gate that did not hold; the message names the gate, its value and its bound."""


class VocabularyError(NewfoundError):
    """Clusters, table and planner that were not made for each other."""
