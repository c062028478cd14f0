"""The language policy: prompt, fine-tuning, exact constrained decoding, alignment and gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newfound.planner.planner import Planner
    from newfound.planner.training.finetune import finetune_planner

__all__ = ["Planner", "finetune_planner"]

_HOMES = {"Planner": "planner", "finetune_planner": "training.finetune"}


def __getattr__(name: str) -> Any:
    """Imports on first use: a component that only names this package does not pay for torch."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"newfound.planner.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
