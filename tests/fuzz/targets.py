"""The fuzz targets there are, and the inputs that are kept of each."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
CRASHED: Final = HERE / "crashed"


def targets() -> list[str]:
    """Names of the modules beside this one that hold a target."""
    names = [module.name for module in pkgutil.iter_modules([str(HERE)])]
    return [name for name in names if "\nclass Target:" in (HERE / f"{name}.py").read_text(encoding="utf-8")]


def load(name: str) -> Any:
    """A target's module."""
    return importlib.import_module(f"tests.fuzz.{name}")


def kept(name: str) -> list[bytes]:
    """The target's seeds, inputs that crashed it once, and what earlier runs have kept."""
    folders = [folder / name for folder in (CRASHED, CORPUS) if (folder / name).is_dir()]
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    return [*load(name).SEEDS, *(file.read_bytes() for file in files)]
