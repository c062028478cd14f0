"""What a run in containers says where there is no Docker, and what it lets containers see."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from newfound.config import TrainingConfig
from pipelines.containers import ContainerError, absolute
from pipelines.local import run_training


def test_without_docker_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    console = Console(file=io.StringIO())
    given = {"runs": tmp_path / "runs", "releases": str(tmp_path / "releases"), "console": console}
    with pytest.raises(ContainerError, match="Docker does not answer .*DOCKER_HOST"):
        run_training(TrainingConfig(), **given, in_containers=True)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_files_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").touch()
    Path("model").mkdir()
    data = {"loader": "files", "interactions": "mine.csv", "items": "s3://bucket/items.parquet"}
    found, read = absolute(TrainingConfig.model_validate({"data": data, "planner": {"model": "model"}}))
    assert set(read) == {tmp_path / "mine.csv", tmp_path / "model"}
    assert (found.data.interactions, found.planner.model) == (str(tmp_path / "mine.csv"), str(tmp_path / "model"))
    assert found.data.items == "s3://bucket/items.parquet"
