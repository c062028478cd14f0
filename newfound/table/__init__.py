"""The transition table: every context's next clusters, worked out ahead of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from newfound.table.artifact import Successor, TransitionTable
from newfound.table.compare import TableDiff, compare_tables

if TYPE_CHECKING:
    from newfound.table.build import build_table, frequency_table, merge
    from newfound.table.shards import build_shard

__all__ = [
    "Successor",
    "TableDiff",
    "TransitionTable",
    "build_shard",
    "build_table",
    "compare_tables",
    "frequency_table",
    "merge",
]

_HOMES = {"build_shard": "shards", "build_table": "build", "frequency_table": "build", "merge": "build"}


def __getattr__(name: str) -> Any:
    """Imports the builders on first use: who looks a table up does not pay for a language model."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"newfound.table.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
