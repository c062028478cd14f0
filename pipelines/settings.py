"""What each step depends on: its sections of the configuration, its code, its packages, its files.

kfp's cache key has a step's own source and its arguments, but neither the library behind it nor the content of files
that are named by path. Both enter as digests in the step's settings, so that a cached result is never a stale one,
and a change reruns only the steps that it concerns.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from newfound.config import TrainingConfig

ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = ("newfound", "components")
COMMON: Final = ("seed", "threads")


@dataclass(frozen=True)
class Step:
    """A component and what it reads.

    Attributes:
        component: its module in `components`.
        sections: of TrainingConfig.
        files: dotted keys of the configuration that name files or folders, whose content counts.
        folders: of this repository, which it reads beside the code that it imports.
    """

    component: str
    sections: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


ALL: Final = tuple(name for name in TrainingConfig.model_fields if name not in COMMON)
DATA_FILES: Final = ("data.folder", "data.interactions", "data.items")
MODEL_FILES: Final = ("clusters.file", "clusters.text_model", "planner.model")

# By the pipeline's parameter.
STEPS: Final = {
    "data": Step("load_interactions", ("data", "split"), DATA_FILES),
    "features": Step("apply_features", ("features",), folders=("feature_repo",)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "clusters": Step("build_clusters", ("clusters",), ("clusters.file", "clusters.text_model")),
    "transitions": Step("mine_transitions", ("transitions",)),
    "planner": Step("finetune_planner", ("planner",), ("planner.model",)),
    "table": Step("build_table", ("table",)),
    "tuning": Step("tune_ranker", ("ranker", "tuning")),
    "ranker": Step("train_ranker", ("ranker",)),
    "evaluation": Step("evaluate", ALL, MODEL_FILES),
    "gates": Step("check_gates", ("evaluation",)),
    "release": Step("publish_release", ALL),
    "interests": Step("publish_interests", folders=("feature_repo",)),
}


def settings(config: TrainingConfig) -> dict[str, str]:
    """The pipeline's arguments but `releases`: for every step a JSON string with all that it depends on."""
    return {name: step_settings(step, config) for name, step in STEPS.items()}


def step_settings(step: Step, config: TrainingConfig) -> str:
    """One step's settings: `config` for the step, `code` and `files` for the caches."""
    values = config.model_dump(mode="json", include={*COMMON, *step.sections})
    document = {
        "config": values,
        "code": code_digest(ROOT / "components" / f"{step.component}.py", step.folders),
        "files": {key: digest for key in step.files if (digest := _digest_of_setting(values, key))},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def code_digest(entry: Path, folders: Iterable[str] = (), root: Path = ROOT) -> str:
    """sha256 over everything that runs when a module does.

    That is: every module of ours that it reaches by imports, wherever in the code they stand; data files beside these
    modules; and the versions of all installed packages that they import (or name in a string: some are wanted for
    the files that they carry), with what those require in turn.

    Args:
        entry: the module's file.
        folders: more folders that count.
        root: where our packages lie.
    """
    modules = sorted(_reach(entry, root))
    files = {file for module in modules for file in (module, *_data_beside(module))}
    for folder in folders:
        files |= {file for file in (root / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0{_sha256(file)}\n".encode())
    for package in sorted(_packages(modules)):
        digest.update(f"{package}=={importlib.metadata.version(package)}\n".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """sha256 over a file, or over all files of a folder and their names."""
    if path.is_file():
        return _sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\n".encode())
    return digest.hexdigest()


def _digest_of_setting(values: dict[str, Any], key: str) -> str | None:
    section, name = key.split(".")
    named = values[section][name]
    # What is not here is either a URL or a mistake, which the step will name.
    return content_digest(Path(named)) if named and Path(named).exists() else None


def _reach(entry: Path, root: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imports(file, root):
            if name.split(".")[0] in OURS:
                waiting.extend(_files_of(name, root))
    return found


def _imports(file: Path, root: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere; of `from a import b` both a and a.b, as b may be a module."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """The module's file and those of the packages around it, as importing it runs them all."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield file


def _data_beside(module: Path) -> Iterator[Path]:
    return (file for file in module.parent.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc"))


def _packages(modules: Iterable[Path]) -> set[str]:
    names = _distributions()
    wanted: set[str] = set()
    for module in modules:
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Import):
                tops = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                tops = [node.module.split(".")[0]]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                tops = [node.value]
            else:
                continue
            wanted.update(package for top in tops for package in names.get(top, ()))
    return _with_requirements(wanted) - {"newfound"}


@functools.cache
def _distributions() -> dict[str, set[str]]:
    """Installed distributions by the names of the modules that they bring, and by their own."""
    found: dict[str, set[str]] = {}
    for top, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            own = canonicalize_name(package)
            for name in (top, package, own):
                found.setdefault(name, set()).add(own)
    return found


def _with_requirements(packages: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = sorted(packages)
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting.extend(_requirements(package))
    return found


@functools.cache
def _requirements(package: str) -> tuple[str, ...]:
    installed, extras = _installed(), _extras().get(package, {""})
    wanted = [Requirement(line) for line in importlib.metadata.requires(package) or ()]
    here = [one.name for one in wanted if one.marker is None or any(one.marker.evaluate({"extra": x}) for x in extras)]
    return tuple(name for name in map(canonicalize_name, here) if name in installed)


@functools.cache
def _extras() -> dict[str, set[str]]:
    """Extras that newfound asks for, such as ibis-framework's duckdb."""
    wanted = [Requirement(line) for line in importlib.metadata.requires("newfound") or ()]
    return {canonicalize_name(one.name): {"", *one.extras} for one in wanted}


@functools.cache
def _installed() -> frozenset[str]:
    return frozenset(own for packages in _distributions().values() for own in packages)


@functools.lru_cache(maxsize=1024)
def _parse(file: Path, digest: str) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _tree(file: Path) -> ast.Module:
    return _parse(file, _sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
