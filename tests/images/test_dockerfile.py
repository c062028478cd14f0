"""The Dockerfile as it is written, where no Docker is needed to judge it."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from components import IMAGE
from tests.images.conftest import TAG, TARGETS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def _stages() -> dict[str, list[str]]:
    """Instructions of every stage by its name."""
    found: dict[str, list[str]] = {}
    for line in (line.strip() for line in TEXT.splitlines()):
        if match := re.fullmatch(r"FROM \S+ AS (\S+)", line):
            found[match[1]] = []
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_runs_as_nobody_and_carries_no_tools(target: str) -> None:
    lines = _stages()[target]
    assert "USER 1000:1000" in lines and not any(line.startswith("RUN") for line in lines)
    taken = {match[1] for line in lines if (match := re.match(r"COPY --from=(\S+)", line))}
    assert taken == {f"{target}-packages", "package"}
    title = next(line for line in lines if "image.title" in line)
    assert f"image.title=newfound-{target}" in title
    # What changes least comes first: the packages, then the code.
    order = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert order[0] == f"--from={target}-packages" and order.index("newfound") > order.index("--from=package")


def test_the_lock_comes_before_the_source() -> None:
    for target in TARGETS:
        lines = _stages()[f"{target}-packages"]
        assert len(lines) == 1 and f"./install.sh newfound-{target} " in lines[0]
    copied = [line for line in _stages()["tools"] if line.startswith("COPY")]
    assert copied == ["COPY pyproject.toml requirements.lock images/install.sh images/locked.py ./"]


def test_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for target in TARGETS:
        asked = _stages()[f"{target}-packages"][0].split(f"newfound-{target} ")[1].split()
        assert asked and set(asked) <= set(extras)


def test_secrets_are_mounted_and_never_arguments() -> None:
    assert "--mount=type=secret,id=pip" in TEXT and "--mount=type=secret,id=ca" in TEXT
    assert not re.search(r"^(ARG|ENV).*(_TOKEN|PASSWORD|INDEX_URL|CERT)", TEXT, re.M)


def test_code_that_runs_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for stage in _stages().values():
        for line in stage:
            if line.startswith("COPY") and "--from" not in line:
                assert set(line.split()[1:-1]) <= kept


def test_names_and_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == TAG and f"newfound-train:{version}" == IMAGE
    assert f"ARG VERSION={version}" in TEXT and f"TAG ?= {version}" in (ROOT / "mk" / "images.mk").read_text()
    named = {
        match
        for file in (ROOT / "k8s" / "base").rglob("*.yaml")
        for match in re.findall(r"image: (newfound-\w+)$", file.read_text(encoding="utf-8"), re.M)
    }
    assert named and named <= {*(f"newfound-{target}" for target in TARGETS), "newfound-vllm"}


@pytest.mark.parametrize(
    ("base", "known", "built"),
    [
        ("python:tag", "python@sha256:abc", "python@sha256:abc"),
        ("python@sha256:def", "python@sha256:abc", "python@sha256:def"),
        ("only-here:tag", "", "only-here:tag"),
    ],
)
def test_every_target_is_built_from_the_digest_of_its_base(tmp_path: Path, base: str, known: str, built: str) -> None:
    """Docker's client is a recorder here: no registry is in reach."""
    docker, log = tmp_path / "docker", tmp_path / "log"
    docker.write_text(
        f'#!/bin/sh\necho "$*" >> {log}\ncase "$*" in *RepoDigests*) echo "{known}";; *Size*) echo 1;; esac\n'
    )
    docker.chmod(0o755)
    environment = {**os.environ, "DOCKER": str(docker), "BASE_IMAGE": base}
    subprocess.run(["sh", str(ROOT / "images" / "build.sh")], env=environment, check=True, capture_output=True)
    builds = [line for line in log.read_text().splitlines() if line.startswith("build ")]
    assert len(builds) == len(TARGETS) and all(f"BASE_IMAGE={built} " in line for line in builds)
