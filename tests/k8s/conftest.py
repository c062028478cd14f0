"""Every overlay, rendered once; and production with a canary in it."""

from __future__ import annotations

import os
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
                folder = beside_production(tmp_path_factory.mktemp("overlay"), "canary")
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


def beside_production(folder: Path, component: str) -> Path:
    """An overlay of somebody else's: production and a component."""
    k8s = os.path.relpath(ROOT / "k8s", folder.resolve())
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{k8s}/overlays/production]\ncomponents: [{k8s}/components/{component}]\n"
    )
    return folder
