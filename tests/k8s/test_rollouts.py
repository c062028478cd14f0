"""Which pods a new release replaces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from k8s.kustomize import ROOT, documents
from k8s.workloads import of_kind, workloads
from newfound.release.manifest import Manifest
from newfound.release.store import publish
from tests.k8s.conftest import Documents, copied
from tests.release.gates import HELD


def _published(folder: Path, root: Path, planner: str, ranker: str) -> Manifest:
    """A release of two parts."""
    for name, text in (("planner", planner), ("ranker", ranker)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "model.safetensors").write_text(text)
    parts = {name: folder / name for name in ("planner", "ranker")}
    return publish(parts, str(root), lineage={}, measures={}, fits={}, gates=HELD)


def _served(folder: Path, release: Manifest) -> Documents:
    """Production with what docs/operations.md says to write into it for a release."""
    text = (ROOT / "k8s/overlays/production/kustomization.yaml").read_text(encoding="utf-8")
    (there,) = re.findall(r"NEWFOUND_PLANNER=\S+", text)
    assert release.id not in text and "NEWFOUND_RELEASE=" not in text
    return documents(copied(folder, (there, f"NEWFOUND_PLANNER={release.planner_name}")))


def _planner(rendered: Documents) -> list[Any]:
    """The planner's objects, and its pods."""
    objects = [
        one for one in of_kind(rendered, "InferenceService", "ServingRuntime") if "planner" in str(one["metadata"])
    ]
    return [objects, [one.pod for one in workloads(rendered) if one.component == "planner"]]


@pytest.fixture
def releases(tmp_path: Path) -> dict[str, Manifest]:
    told = {"first": ("one", "one"), "refreshed": ("one", "two"), "trained": ("two", "two")}
    return {name: _published(tmp_path / name, tmp_path / "releases", *parts) for name, parts in told.items()}


def test_an_unchanged_planner_keeps_its_pods(tmp_path: Path, releases: dict[str, Manifest]) -> None:
    """A Deployment rolls when its pod template changes; the planner's pods hold the GPUs."""
    first, refreshed, trained = (
        _planner(_served(tmp_path / f"k8s-{name}", release)) for name, release in releases.items()
    )
    assert refreshed == first
    assert trained != first, "another planner is another pod"
