"""The architecture: which package may import which, what lies where, how long things are, what stands once."""

from __future__ import annotations

import ast
import contextlib
import functools
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.dependencies import OURS, reach

ROOT: Final = Path(__file__).parents[1]
# A package imports those above it in this list, and none below.
STATIONS: Final = (
    ("errors", "types"),
    ("schema", "measures", "events"),
    ("files",),
    ("config",),
    ("gates",),
    ("service",),
    ("compute",),
    ("datasets",),
    ("features",),
    ("clusters",),
    ("transitions",),
    ("planner",),
    ("table",),
    ("ranker",),
    ("release",),
    ("recommend",),
    ("evaluation",),
    ("simulation",),
    ("refresh",),
    ("cli",),
)
ADAPTERS: Final = ("components", "pipelines", "serving", "monitoring", "k8s")
FEAST: Final = "feature_repo"
# Adapters know the library and Feast's home; pipelines are made of components.
ALLOWED: Final = {"pipelines": {"components"}}
OUTSIDE: Final = ("kfp", "kserve", "feast", "evidently")
PACKAGES: Final = ("newfound", FEAST, *ADAPTERS)
MODULE_LINES: Final = 350
FUNCTION_LINES: Final = 50  # a screen; docstrings, those of inner functions too, are not counted


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _every_module() -> list[Path]:
    return [file for package in PACKAGES for file in _modules(package)]


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@functools.cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _component_files() -> list[Path]:
    return [file for file in _modules("components") if not file.name.startswith("_")]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """By module of the library and the adapters, the modules that it imports, wherever in its code."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_the_librarys_arrows_all_point_down(imports: dict[str, set[str]]) -> None:
    level = {station: at for at, stations in enumerate(STATIONS) for station in stations}
    there = {
        path.stem for path in (ROOT / "newfound").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} <= set(level)
    upwards = {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module.startswith("newfound.") and other.startswith("newfound.")
        if (one := module.split(".")[1]) != (two := other.split(".")[1]) and level[two] >= level[one]
    }
    assert upwards == set()


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_the_library_knows_nothing_of_what_is_built_on_it(imports: dict[str, set[str]]) -> None:
    forbidden = {*ADAPTERS, FEAST, *OUTSIDE, "tests"}
    found = {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module.split(".")[0] == "newfound" and other.split(".")[0] in forbidden
    }
    assert found == set()


@pytest.mark.parametrize("package", (*ADAPTERS, FEAST))
def test_adapters_do_not_know_each_other(package: str, imports: dict[str, set[str]]) -> None:
    forbidden = {*ADAPTERS, "tests"} - {package} - ALLOWED.get(package, set())
    found = {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module.split(".")[0] == package and other.split(".")[0] in forbidden
    }
    assert found == set()


def test_nobody_looks_into_another_package() -> None:
    found = {
        (_name(file), name)
        for file in _every_module()
        for name in _imports(_parse(file))
        if name.split(".")[0] in PACKAGES
        and name.split(".")[0] != file.relative_to(ROOT).parts[0]
        and any(part.startswith("_") for part in name.split("."))
    }
    assert found == set()


def test_no_import_is_relative_beyond_its_package() -> None:
    found = {
        _name(file)
        for file in _every_module()
        for node in ast.walk(_parse(file))
        if isinstance(node, ast.ImportFrom) and node.level > 1
    }
    assert found == set()


def test_no_import_escapes_the_cache_key(imports: dict[str, set[str]]) -> None:
    """`pipelines.dependencies` follows imports itself, for it also wants packages around modules and names in text."""
    seen, waiting = set(), ["components.evaluate"]
    while waiting:
        if (module := waiting.pop()) not in seen:
            seen.add(module)
            waiting += [other for other in imports[module] if other.split(".")[0] in OURS]
    places = [ROOT.joinpath(*module.split(".")) for module in seen]
    files = {place / "__init__.py" if place.is_dir() else place.with_suffix(".py") for place in places}
    assert files <= reach(ROOT / "components" / "evaluate.py") and len(files) > 20


def test_only_the_library_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["newfound"]


def test_every_module_is_short() -> None:
    lengths = {_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in _every_module()}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_every_function_fits_a_screen() -> None:
    long = {
        f"{_name(file)}:{function.name}": lines
        for file in _every_module()
        for function in _functions(_parse(file))
        if (lines := _lines_of(function)) > FUNCTION_LINES
    }
    assert long == {}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = sum(len((ast.get_docstring(one, clean=False) or "").splitlines()) for one in _functions(function))
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_files_are_replaced_in_one_place_alone() -> None:
    """Whoever writes a file or folder whole does so through `newfound.files`."""
    forbidden = {"os.replace", "os.rename", "os.fsync", "tempfile.NamedTemporaryFile", "tempfile.mkstemp"}
    found = {
        (_name(file), ast.unparse(node))
        for file in _every_module()
        for node in ast.walk(_parse(file))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in forbidden
    }
    assert {name for name, _ in found} == {"newfound/files.py"}, found


def test_types_of_arrays_have_one_home() -> None:
    found = {
        (_name(file), ast.unparse(node))
        for file in _every_module()
        for node in _parse(file).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        if re.match(r"(\w+\.)?NDArray\[|tuple\[str, \.\.\.\]", ast.unparse(node.value))
    }
    assert {name for name, _ in found} == {"newfound/types.py"}, found


def test_transitions_are_read_by_their_artifact_alone() -> None:
    """Its tables by name, and the contracts of their columns."""
    named = re.compile(r"\b(ALL_FILE|BALANCED_FILE|WITHHELD_FILE)\b|\"(transitions|balanced|held_out)\.parquet\"")
    found = {_name(file) for file in _every_module() if named.search(file.read_text(encoding="utf-8"))}
    assert found == {"newfound/transitions/artifact.py", "newfound/transitions/mine.py"}


def test_every_module_says_what_it_is() -> None:
    headers = {_name(file): ast.get_docstring(_parse(file)) for file in _every_module() if file.stat().st_size}
    assert {name for name, header in headers.items() if not header} == set()
    riddles = {
        name for name, header in headers.items() if re.match(r"(What|Who|Whose|How|Which|Where)\b", header or "")
    }
    assert riddles == set()


def test_docstrings_name_their_subject() -> None:
    """A function or class is a noun or does something; "What ..." leaves the reader to guess of what kind it is."""
    documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = {
        (_name(file), node.name)
        for file in _every_module()
        for node in ast.walk(_parse(file))
        if isinstance(node, documented)
        if re.match(r"(What|Who|Whose|How|Which|Where)\b", ast.get_docstring(node) or "")
    }
    assert found == set()


def test_tests_mirror_the_tree() -> None:
    by_name: dict[str, set[str]] = {}
    for file in _every_module():
        package, *inner = file.relative_to(ROOT).parent.parts
        folder = "/".join(inner if package == "newfound" else [package, *inner])
        by_name.setdefault(file.stem, set()).add(folder)
    folders = {folder for several in by_name.values() for folder in several} | {
        "images",
        "benchmarks",
        "reference",
        "chain",
        "durability",
        "fuzz",
    }
    for file in (ROOT / "tests").rglob("test_*.py"):
        folder = file.relative_to(ROOT / "tests").parent.as_posix().removeprefix(".")
        assert folder in folders, f"{_name(file)}: no such package"
        named = {one for one in by_name.get(file.stem.removeprefix("test_"), ()) if one.startswith(folder)}
        assert not folder or not named or folder in named, f"{_name(file)}: the module of that name is in {named}"


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
    files = {file.name for file in (ROOT / FEAST).iterdir() if file.name != "__pycache__"}
    yaml = {"feature_store.yaml", "feature_store.production.yaml"}
    assert files == {"__init__.py", ".feastignore", "definitions.py", "store.py", *yaml}


def test_feast_is_known_in_its_home_alone(imports: dict[str, set[str]]) -> None:
    found = {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module.split(".")[0] != FEAST and (other.split(".")[0] == "feast" or other == f"{FEAST}.definitions")
    }
    assert found == set()


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
    heavy = ("torch", "transformers", "sentence_transformers", "sklearn", "optuna")
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
