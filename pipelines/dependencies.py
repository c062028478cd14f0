"""Digests of what runs: the code that a module reaches, and the packages below it."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = ("newfound", "components", "feature_repo")


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
    modules = reach(entry, root)
    files = {file for module in modules for file in (module, *_data_beside(module))}
    for folder in folders:
        files |= {file for file in (root / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0{_digest_of(file)}\n".encode())
    for package, version in sorted(packages_of(modules).items()):
        digest.update(f"{package}=={version}\n".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """sha256 over a file, or over all files of a folder and their names."""
    if path.is_file():
        return _sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\n".encode())
    return digest.hexdigest()


def reach(entry: Path, root: Path = ROOT) -> set[Path]:
    """Files of our modules that a module imports, directly or not, and its own."""
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            for name in _read(file).imported_in(file.relative_to(root).parent.parts):
                if name.split(".")[0] in OURS:
                    waiting.extend(_files_of(name, root))
    return found


def packages_of(modules: Iterable[Path]) -> dict[str, str]:
    """Versions of the installed packages that modules import or name in a string, with what those require."""
    by_name, versions = _distributions(), installed_versions()
    waiting = [package for module in modules for name in _read(module).named for package in by_name.get(name, ())]
    found: set[str] = set()
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting.extend(_requirements(package))
    return {package: versions[package] for package in found if package in versions and package != "newfound"}


@functools.cache
def installed_versions() -> dict[str, str]:
    """Versions of all installed packages, by normalised name."""
    return {canonicalize_name(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}


@dataclass(frozen=True)
class _Module:
    sha256: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]  # level, module, names; level 0 and no names: import module
    strings: frozenset[str]  # short ones, which may be names of packages

    def imported_in(self, package: tuple[str, ...]) -> Iterator[str]:
        """Dotted names; of `from a import b` both a and a.b, as b may be a module."""
        for level, module, names in self.imports:
            above = package[: len(package) - level + 1] if level else ()
            base = ".".join([*above, *([module] if module else [])])
            yield base
            yield from (f"{base}.{name}" for name in names)

    @property
    def named(self) -> Iterator[str]:
        """Names that packages may go by."""
        yield from (module.split(".")[0] for level, module, _ in self.imports if not level)
        yield from self.strings


def _read(file: Path) -> _Module:
    state = file.stat()
    return _parse(file, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _parse(file: Path, _modified: int, _size: int) -> _Module:
    source = file.read_bytes()
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    strings: set[str] = set()
    for node in ast.walk(ast.parse(source, filename=str(file))):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 64:
            strings.add(node.value)
    return _Module(hashlib.sha256(source).hexdigest(), tuple(imports), frozenset(strings))


def _digest_of(file: Path) -> str:
    return _read(file).sha256 if file.suffix == ".py" else _sha256(file)


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


@functools.cache
def _distributions() -> dict[str, set[str]]:
    """Installed packages by the names of the modules that they bring, and by their own."""
    found: dict[str, set[str]] = {own: {own} for own in installed_versions()}
    for top, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            for name in (top, package):
                found.setdefault(name, set()).add(canonicalize_name(package))
    return found


@functools.cache
def _requirements(package: str) -> tuple[str, ...]:
    extras = _extras().get(package, {""})
    if package not in installed_versions():
        return ()
    wanted = [Requirement(line) for line in importlib.metadata.requires(package) or ()]
    here = [one for one in wanted if one.marker is None or any(one.marker.evaluate({"extra": x}) for x in extras)]
    return tuple(canonicalize_name(one.name) for one in here)


@functools.cache
def _extras() -> dict[str, set[str]]:
    """Extras that newfound asks for, such as ibis-framework's duckdb."""
    wanted = [Requirement(line) for line in importlib.metadata.requires("newfound") or ()]
    return {canonicalize_name(one.name): {"", *one.extras} for one in wanted}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
