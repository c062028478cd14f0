"""Moments, methods, baselines and intervals: the evaluation of a fit, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newfound.evaluation.offline import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """Imports on first use: monitoring reads the off-policy estimators without the weight of everything else."""
    if name in __all__:
        from newfound.evaluation import offline

        return getattr(offline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
