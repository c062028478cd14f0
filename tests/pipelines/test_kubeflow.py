"""The compiled pipeline: against its golden, against KFP's own messages; and what submitting says when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from newfound.config import TrainingConfig
from pipelines.__main__ import app
from pipelines.kubeflow import SubmitError, compile_training, submit_training
from pipelines.settings import settings

GOLDEN = Path(__file__).parent / "golden" / "training.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compiled") / "training.yaml"
    compile_training(file)
    return file


@pytest.fixture(scope="module")
def document(compiled: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compiled.read_text(encoding="utf-8"))
    return found


def test_it_is_the_golden(compiled: Path) -> None:
    # Meant to change? `python -m pipelines compile --output tests/pipelines/golden/training.yaml`, and read the diff.
    assert compiled.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")


def test_it_is_what_kfp_understands(document: dict[str, Any]) -> None:
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    # PipelineSpec holds the deployment as a free structure: a typo in there passes unless it is read as what it is.
    deployment = json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    assert len(deployment.executors) == len(spec.root.dag.tasks) == 18
    assert document["sdkVersion"] == "kfp-2.17.0"
    broken = json.loads(json.dumps(document["deploymentSpec"]))
    broken["executors"]["exec-evaluate"]["container"]["imagee"] = "x"
    with pytest.raises(json_format.ParseError, match="imagee"):
        json_format.ParseDict(broken, pipeline_spec_pb2.PipelineDeploymentConfig())


def test_every_step_runs_in_the_same_image_and_installs_nothing(document: dict[str, Any]) -> None:
    containers = [executor["container"] for executor in document["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {"newfound/train:0.1.0"}
    assert not any("pip install" in word for container in containers for word in container["command"])


def test_nothing_is_refitted_or_published_before_the_gates(document: dict[str, Any]) -> None:
    tasks = document["root"]["dag"]["tasks"]

    def upstream(name: str) -> set[str]:
        direct = set(tasks[name].get("dependentTasks", []))
        return direct.union(*(upstream(one) for one in direct)) if direct else direct

    after = {name for name in tasks if "check-gates" in upstream(name)}
    assert after == {name for name in tasks if name.endswith("-2")} | {"publish-release", "publish-interests"}
    assert "fetch-histories-2" not in upstream("evaluate")


def test_what_learns_before_the_gates_reads_the_past_alone(document: dict[str, Any]) -> None:
    tasks = document["root"]["dag"]["tasks"]
    moment = {name: tasks[name]["inputs"]["parameters"]["as_of"]["runtimeValue"]["constant"] for name in tasks
              if name.startswith("fetch-histories")}  # fmt: skip
    assert moment == {"fetch-histories": "cut", "fetch-histories-2": "end"}
    sources = {
        name: task["inputs"]["artifacts"]["histories"]["taskOutputArtifact"]["producerTask"]
        for name, task in tasks.items()
        if "histories" in task["inputs"].get("artifacts", {})
    }
    assert {name for name, source in sources.items() if source == "fetch-histories-2"} == {
        "mine-transitions-2",
        "train-ranker-2",
    }


def test_a_configuration_becomes_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings(TrainingConfig(seed=11))
    monkeypatch.setattr("pipelines.kubeflow.settings", lambda config: values)
    compile_training(tmp_path / "training.yaml", TrainingConfig(seed=11))
    document = yaml.safe_load((tmp_path / "training.yaml").read_text(encoding="utf-8"))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    defaults = {name: given.get("defaultValue") for name, given in parameters.items()}
    assert defaults == {**values, "releases": None}


def test_the_command_line_writes_the_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compile", "--output", str(tmp_path / "deep" / "training.yaml")])
    assert done.exit_code == 0
    assert (tmp_path / "deep" / "training.yaml").read_text() == GOLDEN.read_text()


def _submit(host: str) -> str:
    return submit_training(
        TrainingConfig(), host=host, experiment="newfound", name=None, namespace=None, releases="s3://bucket/releases"
    )


def test_an_address_that_nobody_listens_at_is_named() -> None:
    with pytest.raises(SubmitError, match=r"^http://127\.0\.0\.1:9: not reachable"):
        _submit("http://127.0.0.1:9")
