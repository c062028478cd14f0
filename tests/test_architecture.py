"""The house: who may import whom, how thin components are, what lies where."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.dependencies import reach

ROOT = Path(__file__).parents[1]
ADAPTERS = ("components", "pipelines", "serving", "monitoring", "feature_repo", "k8s")
OUTSIDE = ("kfp", "kserve", "feast", "evidently")
# The ways in which adapters know each other: pipelines are made of components, and Feast has one home.
ALLOWED = {
    "pipelines": {"components", "feature_repo"},
    "components": {"feature_repo"},
    "serving": {"feature_repo"},
    "monitoring": {"feature_repo"},
}


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _component_files() -> list[Path]:
    return [file for file in _modules("components") if not file.name.startswith("_")]


def test_the_library_knows_nothing_of_what_is_built_on_it() -> None:
    forbidden = {*ADAPTERS, *OUTSIDE, "tests"}
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in _modules("newfound")
        for name in _imports(_parse(file))
        if name.split(".")[0] in forbidden
    }
    assert found == set()


@pytest.mark.parametrize("package", ADAPTERS)
def test_adapters_do_not_know_each_other(package: str) -> None:
    forbidden = {*ADAPTERS, "tests"} - {package} - ALLOWED.get(package, set())
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in _modules(package)
        for name in _imports(_parse(file))
        if name.split(".")[0] in forbidden
    }
    assert found == set()


def test_nobody_looks_into_another_package() -> None:
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for package in ("newfound", *ADAPTERS)
        for file in _modules(package)
        for name in _imports(_parse(file))
        if name.split(".")[0] in ("newfound", *ADAPTERS)
        and name.split(".")[0] != package
        and any(part.startswith("_") for part in name.split("."))
    }
    assert found == set()


def test_no_import_is_relative_beyond_its_package() -> None:
    found = {
        file.relative_to(ROOT).as_posix()
        for package in ("newfound", *ADAPTERS)
        for file in _modules(package)
        for node in ast.walk(_parse(file))
        if isinstance(node, ast.ImportFrom) and node.level > 1
    }
    assert found == set()


def test_only_the_library_is_in_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["newfound"]


@pytest.mark.parametrize("file", _component_files(), ids=lambda file: file.stem)
def test_a_component_is_one_thin_function_of_its_files_name(file: Path) -> None:
    functions = [node for node in _parse(file).body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == [file.stem]
    (function,) = functions
    assert ast.get_docstring(function)
    body = [statement for statement in function.body[1:]]
    source = file.read_text(encoding="utf-8").splitlines()
    lines = [line for line in source[body[0].lineno - 1 : body[-1].end_lineno] if line.strip()]
    assert len(lines) <= 15
    # kfp reads annotations as they are; as strings they would break the component.
    assert "from __future__ import annotations" not in source


@pytest.mark.parametrize("file", _component_files(), ids=lambda file: file.stem)
def test_a_component_runs_in_the_one_image_and_installs_nothing(file: Path) -> None:
    (function,) = (node for node in _parse(file).body if isinstance(node, ast.FunctionDef))
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
    assert given == {"base_image": "IMAGE", "packages_to_install": "[]", "install_kfp_package": "False"}


def test_the_feature_repository_holds_definitions_stores_and_their_home_only() -> None:
    files = {file.name for file in (ROOT / "feature_repo").iterdir() if file.name != "__pycache__"}
    yaml = {"feature_store.yaml", "feature_store.production.yaml"}
    assert files == {"__init__.py", ".feastignore", "definitions.py", "store.py", *yaml}


def test_feast_is_known_in_its_home_alone() -> None:
    home = ROOT / "feature_repo"
    names = {
        (file.relative_to(ROOT).as_posix(), name)
        for package in ("newfound", *ADAPTERS)
        for file in _modules(package)
        for name in _imports(_parse(file))
        if name.split(".")[0] == "feast"
        and file.parent != home
        or name.startswith("feature_repo.")
        and not name.startswith("feature_repo.store")
    }
    assert names == set()


@pytest.mark.parametrize(
    "module",
    [
        "newfound",
        "newfound.config",
        "newfound.schema",
        "newfound.cli",
        "newfound.release.store",
        "newfound.recommend.policy",
    ],
)
def test_light_modules_stay_light(module: str) -> None:
    import subprocess
    import sys

    heavy = ("torch", "transformers", "sentence_transformers", "sklearn", "optuna", "plotly", "peft")
    probe = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def _brought(extras: Iterable[str]) -> set[str]:
    """Names of the packages that newfound's requirements bring, with some extras."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [("newfound", frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for one in map(Requirement, importlib.metadata.requires(name) or ()):
                if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                    waiting.append((canonicalize_name(one.name), frozenset(one.extras)))
    return {name for name, _ in seen}


def test_what_a_step_imports_is_in_its_image() -> None:
    (line,) = re.findall(r"install\.sh newfound-train (.*)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    brought, owners = _brought(line.split()), importlib.metadata.packages_distributions()
    files = {file for component in _component_files() for file in reach(component)}
    tops = {name.split(".")[0] for file in files for name in _imports(_parse(file))} - sys.stdlib_module_names
    tops -= {path.parent.name for path in ROOT.glob("*/__init__.py")}
    missing = {top for top in tops if not {canonicalize_name(owner) for owner in owners.get(top, ())} & brought}
    assert missing == set()
    assert {"httpx", "torch", "feast"} <= tops
