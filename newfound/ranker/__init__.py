"""The item policy: train it, tune it, load it. Importing this loads no numerics; using it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newfound.ranker.artifact import Ranker
    from newfound.ranker.build import train_ranker
    from newfound.ranker.tune import tune_ranker

__all__ = ["Ranker", "train_ranker", "tune_ranker"]

_HOMES = {"Ranker": "artifact", "train_ranker": "build", "tune_ranker": "tune"}


def __getattr__(name: str) -> Any:
    """Imports torch and Optuna only when something that needs them is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
