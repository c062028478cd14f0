"""The commands that start pipelines, and that the pipelines know them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from monitoring.retraining.decide import Decision
from monitoring.retraining.submit import command_of
from tests.monitoring.servers import ROOT


def test_what_is_started() -> None:
    given = {"config": Path("c.yaml"), "interactions": "i.parquet", "items": "items.parquet"}
    local = command_of(Decision("refresh", "because"), to="local", releases="r", **given)
    common = ["--config", "c.yaml", "--releases", "r", "--interactions", "i.parquet"]
    assert local[1:] == ["-m", "pipelines", "local", "refresh", *common]
    there = command_of(Decision("refresh", "because"), to="http://kfp", releases="r", **given)
    submitted = ["pipelines", "submit", "refresh", "--host", "http://kfp", "--name", "refresh: because"]
    assert there[1:] == ["-m", *submitted, *common]
    tuned = command_of(Decision("finetune", "because"), to="http://kfp", releases="r", **given)
    assert tuned[2:7] == ["pipelines", "submit", "training", "--host", "http://kfp"] and tuned[-2:] == [
        "--items",
        "items.parquet",
    ]


@pytest.mark.parametrize("action", ["refresh", "finetune"])
@pytest.mark.parametrize("to", ["local", "http://127.0.0.1:9"])
def test_the_pipelines_know_the_options(action: str, to: str, tmp_path: Path) -> None:
    """The very commands, which then miss what they should work on."""
    decision = Decision(action, "because")  # type: ignore[arg-type]
    config = ROOT / "pipelines/configs/local.yaml"
    given = {"config": config, "releases": str(tmp_path / "r"), "interactions": "absent.parquet", "items": "no.parquet"}
    extra = ["--runs", str(tmp_path / "runs")] if to == "local" else []
    done = subprocess.run(command_of(decision, to=to, **given, extra=extra), cwd=ROOT, capture_output=True, text=True)
    expected = "no release" if action == "refresh" else "absent.parquet" if to == "local" else "not reachable"
    assert done.returncode == 1 and expected in done.stderr, done.stderr
