"""Every overlay, rendered once; and production with a canary in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.kustomize import ROOT, documents

OVERLAYS = ("local", "production", "production with a canary")
Documents = list[dict[str, Any]]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Documents]:
    """The objects of an overlay by its name."""
    done: dict[str, Documents] = {}

    def render(name: str) -> Documents:
        if name not in done:
            folder = ROOT / "k8s" / "overlays" / name
            if name == "production with a canary":
                folder = with_component(tmp_path_factory.mktemp("overlay"), "canary")
            done[name] = documents(folder)
        return done[name]

    return render


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, rendered: Callable[[str], Documents]) -> Documents:
    """The objects of each overlay in turn."""
    return rendered(request.param)


@pytest.fixture
def production(rendered: Callable[[str], Documents]) -> Documents:
    """The objects of the production overlay."""
    return rendered("production")


def copied(folder: Path, *changes: tuple[str, str]) -> Path:
    """Production in a copy of the manifests, its kustomization changed: (what is there, what comes instead)."""
    for part in ("k8s", "monitoring/dashboards", "monitoring/configs", "pipelines"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    overlay = folder / "k8s" / "overlays" / "production"
    text = (overlay / "kustomization.yaml").read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after, 1)
    (overlay / "kustomization.yaml").write_text(text, encoding="utf-8")
    return overlay


def with_component(folder: Path, component: str) -> Path:
    """Production with one component more, before the others, as docs/operations.md says to add it."""
    return copied(folder, ("components:\n", f"components:\n  - ../../components/{component}\n"))


def with_last_components(folder: Path, *names: str) -> Path:
    """Production with further components, behind the others, as docs/operations.md says to add them."""
    added = "".join(f"  - ../../components/{name}\n" for name in names)
    return copied(folder, ("\nconfigMapGenerator:", f"{added}\nconfigMapGenerator:"))
