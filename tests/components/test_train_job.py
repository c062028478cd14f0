"""Steps as TrainJobs: a controller on loopback runs the pods' very commands, so torchrun really trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from components import _train_job
from components.finetune_planner import finetune_planner
from components.train_ranker import train_ranker
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig, PlannerConfig, TrainingConfig
from newfound.planner.planner import Planner
from newfound.planner.training.finetune import finetune_planner as finetune
from newfound.ranker import Ranker
from newfound.ranker import train_ranker as train
from pipelines.platform import Platform, Toleration, load_platform
from serving.local.processes import free_port
from tests.components.kube_api import KubeApi
from tests.planner.tiny_planner import write_base, write_world
from tests.ranker.conftest import SMALL, World

ROOT = Path(__file__).parents[2]
CONFIG = TrainingConfig(ranker=SMALL.model_copy(update={"dropout": 0.0, "epochs": 2}), threads=1)


class Trainer:
    """Kubeflow Trainer: runs each TrainJob's pods as processes, told what its torch runtime tells them."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, job: dict[str, Any]) -> None:
        self.jobs.append(job)
        self.threads.append(threading.Thread(target=self._run, args=(job,)))
        self.threads[-1].start()

    def _run(self, job: dict[str, Any]) -> None:
        trainer, port = job["spec"]["trainer"], str(free_port())
        pods = [
            subprocess.Popen(
                trainer["command"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={
                    **os.environ,
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    **{one["name"]: one["value"] for one in trainer["env"] if "value" in one},
                    "PET_NNODES": str(trainer["numNodes"]),
                    "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                    "PET_NODE_RANK": str(rank),
                    "PET_MASTER_ADDR": "127.0.0.1",
                    "PET_MASTER_PORT": port,
                    "GLOO_SOCKET_IFNAME": "lo",
                },
            )
            for rank in range(trainer["numNodes"])
        ]
        self.said += [pod.communicate()[0] for pod in pods]
        print(*self.said, sep="\n")
        well = all(pod.returncode == 0 for pod in pods)
        condition = {
            "type": "Complete" if well else "Failed",
            "status": "True",
            "reason": "JobsCompleted" if well else "JobsFailed",
        }
        job["status"] = {"conditions": [condition]}


def _artifact(path: Path) -> Any:
    return SimpleNamespace(uri=str(path), path=str(path), metadata={}, log_metric=lambda name, value: None)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_train_job.run_train_job, "__defaults__", (0.1,))


def _run(world: World, tmp_path: Path, output: str = "ranker", **job: Any) -> dict[str, Any]:
    """The component's own function, as KFP calls it."""
    (tmp_path / "tuned").mkdir(exist_ok=True)
    (tmp_path / "tuned" / "best.json").write_text(json.dumps({"settings": {}, "trials": 0}))
    settings = json.dumps({"config": CONFIG.model_dump(mode="json", include={"ranker", "seed", "threads"})})
    platform = Platform.model_validate({"image": "newfound-train:0.1.0", "train_jobs": {"train_ranker": job}})
    metrics = _artifact(tmp_path / "metrics.json")
    train_ranker.python_func(
        dataset=_artifact(world.dataset),
        histories=_artifact(world.histories),
        clusters=_artifact(world.clusters),
        tuned=_artifact(tmp_path / "tuned"),
        settings=settings,
        job=platform.train_job("train_ranker"),
        ranker=_artifact(tmp_path / output),
        metrics=metrics,
    )
    return dict(json.loads((tmp_path / "metrics.json").read_text()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_pods_train_what_one_process_does(kube: KubeApi, world: World, tmp_path: Path) -> None:
    trainer = Trainer()
    kube.on_change = trainer
    measures = _run(world, tmp_path, nodes=2)
    (job,) = trainer.jobs
    assert job["spec"]["trainer"]["numNodes"] == 2 and job["spec"]["trainer"]["image"] == "newfound-train:0.1.0"
    shared = Ranker.load(tmp_path / "ranker")
    assert json.loads((tmp_path / "ranker" / "training.json").read_text())["config"]["epochs"] == 2
    alone = train(*world, CONFIG.ranker, CONFIG.seed, 1, tmp_path / "alone")
    assert measures["validation.ndcg@10"] == pytest.approx(alone["validation.ndcg@10"], abs=0.03)
    assert len(shared.items) == len(Ranker.load(tmp_path / "alone").items)
    # Neither the job nor its draft of the ranker is left.
    assert not kube.objects and not (tmp_path / "ranker.job").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_pods_fine_tune_what_one_process_does(kube: KubeApi, tmp_path: Path) -> None:
    """Two processes in each: four share the reading, and what is fitted to it is what one process fits."""
    trainer = Trainer()
    kube.on_change = trainer
    world = write_base(write_world(tmp_path))
    tuning = FinetuneConfig(teacher_penalty=0.2)
    config = TrainingConfig(
        planner=PlannerConfig(model=str(world / "base"), precision="float32", finetune=tuning), threads=1
    )
    job = {"nodes": 2, "processes": 2}
    platform = Platform.model_validate({"image": "newfound-train:0.1.0", "train_jobs": {"finetune_planner": job}})
    finetune_planner.python_func(
        transitions=_artifact(world / "transitions"),
        clusters=_artifact(world / "clusters"),
        settings=json.dumps({"config": config.model_dump(mode="json", include={"planner", "seed", "threads"})}),
        planner=_artifact(tmp_path / "planner"),
        metrics=_artifact(tmp_path / "metrics.json"),
        job=platform.train_job("finetune_planner"),
    )
    (made,) = trainer.jobs
    assert (made["spec"]["trainer"]["numNodes"], made["spec"]["trainer"]["numProcPerNode"]) == (2, 2)
    finetune(world / "transitions", world / "clusters", config.planner, config.seed, tmp_path / "alone", threads=1)
    shared, alone = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("planner", "alone"))
    assert shared["contexts"] == alone["contexts"] == 56 and len(shared["fits"]) == len(alone["fits"]) == 5
    for one, other in zip(shared["fits"], alone["fits"], strict=True):
        assert one["mrr"] == pytest.approx(other["mrr"], abs=0.02)
    measures = json.loads((tmp_path / "metrics.json").read_text())
    assert measures["match_rate"] == shared["match_rate"]
    planner = Planner.load(tmp_path / "planner", Clusters.load(world / "clusters"), precision="float32")
    assert len(planner.top_k([("c0", "c3")], 3)[0][0]) == 3
    assert not kube.objects and not (tmp_path / "planner.job").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_that_is_retried_goes_on_waiting(
    kube: KubeApi, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    kube.on_change = trainer
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_train_job, "_until", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        _run(world, tmp_path)
    assert len(trainer.jobs) == 1 and not (tmp_path / "ranker").exists()
    # The second attempt may be told another place for its output.
    measures = _run(world, tmp_path, output="elsewhere")
    assert len(trainer.jobs) == 1 and measures["validation.ndcg@10"] > 0
    assert Ranker.load(tmp_path / "elsewhere").items


@pytest.mark.timeout(300)
def test_a_job_that_fails_is_told_and_replaced(
    kube: KubeApi, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_MAX_RESTARTS", "0")
    trainer = Trainer()
    kube.on_change = trainer
    gone = world._replace(dataset=tmp_path / "absent")
    for attempt in (1, 2):
        with pytest.raises(SystemExit):
            _run(gone, tmp_path)
        assert len(trainer.jobs) == attempt
    assert ("delete", "trainjobs", trainer.jobs[0]["metadata"]["name"]) in kube.log
    assert not (tmp_path / "ranker").exists()


def test_what_the_cluster_refuses_is_told(
    kube: KubeApi,
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kube.allowed = lambda verb, kind, name: verb != "create"
    with pytest.raises(SystemExit):
        _run(world, tmp_path)
    assert "the cluster answered 403 Forbidden" in capsys.readouterr().out


def test_the_manifest_says_what_the_platform_does() -> None:
    platform = load_platform(ROOT / "pipelines" / "platforms" / "production.yaml")
    job = platform.train_jobs.train_ranker
    assert job is not None
    changed = job.model_copy(
        update={
            "queue": "gpus",
            "service_account": "trainer",
            "resources": job.resources.model_copy(
                update={
                    "accelerators": 2,
                    "node_selector": {"pool": "gpu"},
                    "tolerations": (Toleration(key="nvidia.com/gpu"),),
                    "timeout_seconds": 5,
                }
            ),
        }
    )
    platform = platform.model_copy(
        update={"train_jobs": platform.train_jobs.model_copy(update={"train_ranker": changed})}
    )
    task = {"step": "train_ranker", "inputs": {}, "made": "ranker", "output": "s3://b/x.job", "settings": "{}"}
    made = _train_job.manifest("newfound-train-ranker-1", json.loads(platform.train_job("train_ranker")), task)
    trainer = made["spec"]["trainer"]
    assert (made["apiVersion"], made["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, platform.image)
    assert trainer["resourcesPerNode"]["requests"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2"}
    (patch,) = made["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    # kubeflow/trainer, issues 2794 and 2872: with a sidecar, torchrun's processes do not find each other in a profile.
    assert node["template"]["spec"]["template"]["metadata"]["labels"] == {"sidecar.istio.io/inject": "false"}
    pod = node["template"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("trainer", {"pool": "gpu"})
    # Trainer's own models drop what they do not know: nothing is lost on the way through them.
    assert TrainerV1alpha1TrainJob.from_dict(made).to_dict() == made
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in trainer["env"] if "valueFrom" in one}
    assert secrets == {name: secret.model_dump() for name, secret in platform.secrets.items()}


@pytest.mark.parametrize(
    ("uri", "url"),
    [("minio://b/a", "s3://b/a"), ("s3://b/a", "s3://b/a"), ("gs://b/a", "gs://b/a"), ("/here", "/here")],
)
def test_artifacts_are_found_in_the_object_store(uri: str, url: str) -> None:
    assert _train_job.store_url(uri) == url
