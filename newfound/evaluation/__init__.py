"""Measures, protocols, rivals, gates, and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newfound.evaluation.evaluating import evaluate
    from newfound.evaluation.gates import check_gates, judge_gates

__all__ = ["check_gates", "evaluate", "judge_gates"]


def __getattr__(name: str) -> Any:
    """Imports on first use: monitoring reads the measures without the weight of everything else."""
    if name in __all__:
        import importlib

        home = "evaluating" if name == "evaluate" else "gates"
        return getattr(importlib.import_module(f"newfound.evaluation.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
