"""Feast's store, opened without what importing Feast spends seconds on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import FeatureStore


def open_store(repository: Path) -> FeatureStore:
    """The feature store; which one, `FEAST_FS_YAML_FILE_PATH` says.

    Args:
        repository: Feast's folder.
    """
    _import_feast()
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repository))


def _import_feast() -> None:
    """Imports Feast without torch, which it takes where it finds it, for a type that is not used here, and without
    typeguard's rewriting of its classes, which takes half of the import's time to check what mypy has checked."""
    if "feast" in sys.modules:
        return
    typeguard = importlib.import_module("typeguard")
    checked, without_torch = typeguard.typechecked, "torch" not in sys.modules
    if without_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    typeguard.typechecked = _unchecked  # type: ignore[attr-defined]
    try:
        importlib.import_module("feast")
    finally:
        typeguard.typechecked = checked  # type: ignore[attr-defined]
        if without_torch:
            del sys.modules["torch"]


def _unchecked(target: Any = None, **_: Any) -> Any:
    return (lambda later: later) if target is None else target
