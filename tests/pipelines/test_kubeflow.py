"""The compiled pipelines: against their goldens, against KFP's own messages, and against each other's promises."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from components._image import IMAGE
from newfound.config import TrainingConfig, load_config, parse_config
from newfound.errors import ConfigError
from pipelines import refresh
from pipelines.__main__ import app
from pipelines.kubeflow import PIPELINES, compile_pipeline
from pipelines.options import PLATFORM, PRODUCTION
from pipelines.platform import Platform, load_platform
from pipelines.settings import settings_of
from pipelines.training import STEPS

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
# Components that work on tables.
TABLES = {
    "training": {
        "load_interactions",
        "write_features",
        "mine_transitions",
        "fit_decision",
        "evaluate",
        "run_experiment",
        "publish_interests",
    },
    "refresh": {"load_interactions", "write_features", "mine_transitions", "judge_refresh"},
}
FILES = [f"{name}{target}.yaml" for name in PIPELINES for target in ("", "-production")]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m pipelines compile` writes."""
    folder = tmp_path_factory.mktemp("compiled") / "deep"
    options = ["--config", str(ROOT / PRODUCTION), "--platform", str(ROOT / PLATFORM), "--output", str(folder)]
    done = CliRunner().invoke(app, ["compile", *options])
    assert done.exit_code == 0, done.output
    return folder


@functools.cache
def _documents(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    # The loader in C: thousands of lines take the other one seconds.
    spec, *platforms = yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return spec, platforms[0] if platforms else {}


@pytest.fixture(scope="module")
def document(compiled: Path) -> dict[str, Any]:
    return _documents(compiled / "training.yaml")[0]


@pytest.fixture(scope="module")
def production(compiled: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return _documents(compiled / "training-production.yaml")


@pytest.mark.parametrize("name", FILES)
def test_it_is_the_golden(compiled: Path, name: str) -> None:
    # Meant to change? `python -m pipelines compile --output tests/pipelines/golden`, and read the diff.
    assert (compiled / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")


def test_every_golden_is_compiled(compiled: Path) -> None:
    assert {file.name for file in compiled.iterdir()} == {file.name for file in GOLDEN.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_kfp_understands(compiled: Path, name: str) -> None:
    document, platforms = _documents(compiled / name)
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    # PipelineSpec holds the deployment as a free structure: a typo in there passes unless it is read as what it is.
    deployment = json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    components = [one for one in spec.components.values() if one.executor_label]
    assert {one.executor_label for one in components} == set(deployment.executors)
    assert document["sdkVersion"] == "kfp-2.17.0"
    # And PlatformSpec likewise what Kubernetes is to do.
    json_format.ParseDict(platforms, pipeline_spec_pb2.PlatformSpec())
    executors = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    assert set(executors) == (set(deployment.executors) if platforms else set())
    for config in executors.values():
        json_format.ParseDict(config, KubernetesExecutorConfig())


def test_a_misspelling_below_the_free_structures_is_caught(production: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, platforms = json.loads(json.dumps(production))
    document["deploymentSpec"]["executors"]["exec-evaluate"]["container"]["imagee"] = "x"
    with pytest.raises(json_format.ParseError, match="imagee"):
        json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    config = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-evaluate"]
    config["activeDeadlineSecond"] = 1
    json_format.ParseDict(platforms, pipeline_spec_pb2.PlatformSpec())
    with pytest.raises(json_format.ParseError, match="activeDeadlineSecond"):
        json_format.ParseDict(config, KubernetesExecutorConfig())


@pytest.mark.parametrize("name", FILES)
def test_every_step_runs_in_the_same_image_and_installs_nothing(compiled: Path, name: str) -> None:
    document, _ = _documents(compiled / name)
    containers = [executor["container"] for executor in document["deploymentSpec"]["executors"].values()]
    image = load_platform(ROOT / PLATFORM).image if "production" in name else IMAGE
    assert {container["image"] for container in containers} == {image}
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
        "fit-decision-2",
        "mine-transitions-2",
        "train-ranker-2",
    }


def test_one_machine_and_the_cluster_run_the_same_components(compiled: Path) -> None:
    """But for those that share work out, and the release's deployment."""

    def components(name: str) -> set[str]:
        return {executor.removeprefix("exec-").rstrip("-23") for executor in _documents(compiled / name)[0]["deploymentSpec"]["executors"]}  # fmt: skip  # noqa: E501

    here, there = components("training.yaml"), components("training-production.yaml")
    assert there - here == {"build-table-shard", "merge-table", "deploy-release"}
    assert here - there == {"build-table", "publish-interests"}
    assert "publish-interests" in components("interests-production.yaml")  # which follows promotion
    assert components("refresh-production.yaml") - components("refresh.yaml") == {"deploy-release"}
    assert components("batch-production.yaml") == components("batch.yaml")


def _tasks(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of the pipeline and of its loops, by name."""
    found = dict(document["root"]["dag"]["tasks"])
    for name, component in document["components"].items():
        if "dag" in component:
            found |= {f"{name}/{task}": spec for task, spec in component["dag"]["tasks"].items()}
    return found


def test_only_past_the_gates_is_a_release_deployed(production: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tasks = production[0]["root"]["dag"]["tasks"]
    deployed = tasks["deploy-release"]
    assert {"check-gates", "publish-release"} <= set(deployed["dependentTasks"])
    assert deployed["inputs"]["artifacts"]["gates"]["taskOutputArtifact"]["producerTask"] == "check-gates"
    # What the canary may still stop does not serve yet.
    promote = tasks["publish-release"]["inputs"]["parameters"]["promote"]["runtimeValue"]["constant"]
    assert promote is False
    for task in (deployed, tasks["publish-release"]):
        assert task.get("triggerPolicy", {}).get("strategy", "") in ("", "ALL_UPSTREAM_TASKS_SUCCEEDED")


def test_the_work_is_shared_out(production: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document = production[0]
    config, platform = load_config(ROOT / PRODUCTION), load_platform(ROOT / PLATFORM)
    loops = {
        next(iter(document["components"][task["componentRef"]["name"]]["dag"]["tasks"])): task
        for name, task in document["root"]["dag"]["tasks"].items()
        if name.startswith("for-loop")
    }
    assert set(loops) == {"build-table-shard", "build-table-shard-2", "tune-ranker"}
    items = {name: json.loads(task["parameterIterator"]["items"]["raw"]) for name, task in loops.items()}
    assert items["build-table-shard"] == items["build-table-shard-2"] == list(range(config.table.shards))
    assert items["tune-ranker"] == list(range(platform.tuning_workers))
    limit = loops["build-table-shard"]["iteratorPolicy"]["parallelismLimit"]
    assert limit == platform.table_shards_at_once
    # Whoever reads what the workers found does so when all are done.
    searched = next(name for name, task in document["root"]["dag"]["tasks"].items() if task is loops["tune-ranker"])
    assert searched in document["root"]["dag"]["tasks"]["tune-ranker-2"]["dependentTasks"]


def test_what_has_effects_elsewhere_never_comes_from_the_cache(compiled: Path) -> None:
    for name in (name for name in FILES if "production" in name):
        cached = {
            task.split("/")[-1]
            for task, spec in _tasks(_documents(compiled / name)[0]).items()
            if spec.get("cachingOptions", {}).get("enableCache")
        }
        assert not cached & {
            "publish-release",
            "publish-refresh",
            "publish-interests",
            "deploy-release",
            "recommend-batch",
            "tune-ranker",
        }
        assert "load-interactions" in cached


def test_a_schedule_reads_the_data_anew(tmp_path: Path) -> None:
    platform = load_platform(ROOT / PLATFORM)
    compile_pipeline("training", tmp_path / "training.yaml", platform, recurring=True)
    tasks = _documents(tmp_path / "training.yaml")[0]["root"]["dag"]["tasks"]
    assert not tasks["load-interactions"]["cachingOptions"].get("enableCache")
    assert tasks["build-clusters"]["cachingOptions"]["enableCache"]


def test_a_step_is_put_where_the_platform_says(production: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, platforms = production
    platform = load_platform(ROOT / PLATFORM)
    executors = document["deploymentSpec"]["executors"]
    places = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    gpu = executors["exec-build-clusters"]["container"]["resources"]
    assert (gpu["accelerator"]["resourceType"], gpu["accelerator"]["resourceCount"]) == ("nvidia.com/gpu", "1")
    assert gpu["resourceMemoryLimit"] == platform.steps["build-clusters"].memory
    assert places["exec-build-clusters"]["nodeSelector"]["labels"] == platform.steps["build-clusters"].node_selector
    assert places["exec-build-clusters"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "accelerator" not in executors["exec-evaluate"]["container"]["resources"]
    for name, place in places.items():
        assert int(place["activeDeadlineSeconds"]) > 0
        assert place["securityContext"] == {"runAsUser": "1000", "runAsGroup": "1000", "runAsNonRoot": True}
        named = {(one["secretName"], key["secretKey"], key["envVar"])
                 for one in place["secretAsEnv"] for key in one["keyToEnv"]}  # fmt: skip
        assert named == {(secret.name, secret.key, variable) for variable, secret in platform.secrets.items()}
        variables = {one["name"]: one["value"] for one in executors[name]["container"]["env"]}
        assert variables == platform.environment
    retries = {
        name: task["retryPolicy"]["maxRetryCount"] for name, task in _tasks(document).items() if "retryPolicy" in task
    }
    assert "check-gates" not in retries and retries["evaluate"] == platform.default.retries
    assert retries["comp-for-loop-2/build-table-shard"] == 5


def test_spark_reaches_the_steps_that_work_on_tables(tmp_path: Path) -> None:
    """The configuration as their settings, and the folder that they share with Spark's executors as a volume."""
    platform = load_platform(ROOT / PLATFORM).model_copy(update={"volumes": {"/mnt/tables": "newfound-tables"}})
    spark = {"master": "spark://spark:7077", "folder": "/mnt/tables", "properties": {"spark.executor.memory": "8g"}}
    config = load_config(ROOT / PRODUCTION, {"engine": "spark", "spark": spark})
    for name, steps in (("training", STEPS), ("refresh", refresh.STEPS)):
        compile_pipeline(name, tmp_path / "it.yaml", platform, defaults=settings_of(steps, config, "image"))
        document, platforms = yaml.load_all((tmp_path / "it.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
        places = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert all(
            [(one["constant"], one["mountPath"]) for one in place["pvcMount"]] == [("newfound-tables", "/mnt/tables")]
            for place in places.values()
        )
        inputs = document["root"]["inputDefinitions"]["parameters"]
        told = {
            steps[parameter].component
            for parameter in steps
            if parse_config(json.loads(inputs[parameter]["defaultValue"])["config"], parameter).engine == "spark"
        }
        assert told - {"publish_release"} == TABLES[name]


@pytest.mark.parametrize("name", [name for name in FILES if "production" in name])
def test_the_last_retry_is_not_given_up_before_it_begins(compiled: Path, name: str) -> None:
    """The SDK writes an hour where nothing is said (kubeflow/pipelines, sdk/python/kfp/dsl/structures.py), KFP hands it
    to Argo as `maxDuration` (backend/src/v2/compiler/argocompiler/container.go), and Argo counts it from the start
    of the first attempt (argoproj/argo-workflows, workflow/controller/operator.go, processNodeRetries)."""
    document, platforms = _documents(compiled / name)
    timeouts = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for task, spec in _tasks(document).items():
        if "retryPolicy" not in spec:
            continue
        policy, component = spec["retryPolicy"], document["components"][spec["componentRef"]["name"]]
        before = policy["maxRetryCount"] * int(timeouts[component["executorLabel"]]["activeDeadlineSeconds"])
        assert int(policy["backoffMaxDuration"].removesuffix("s")) > before, task


def test_a_waiting_step_outlives_its_train_job() -> None:
    platform = load_platform(ROOT / PLATFORM)
    for name in type(platform.train_jobs).model_fields:
        job = getattr(platform.train_jobs, name)
        assert platform.steps[name.replace("_", "-")].timeout_seconds > job.resources.timeout_seconds


def test_a_configuration_becomes_the_defaults(tmp_path: Path) -> None:
    values = settings_of(STEPS, TrainingConfig(seed=11), "image")
    compile_pipeline("training", tmp_path / "training.yaml", defaults=values)
    document = yaml.safe_load((tmp_path / "training.yaml").read_text(encoding="utf-8"))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    defaults = {name: given.get("defaultValue") for name, given in parameters.items()}
    assert defaults == {**values, "releases": None, "previous": ""}


def test_every_step_of_a_platform_is_one(compiled: Path) -> None:
    executors = {
        executor.removeprefix("exec-")
        for name in FILES
        for executor in _documents(compiled / name)[0]["deploymentSpec"]["executors"]
    }
    assert set(load_platform(ROOT / PLATFORM).steps) <= executors


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": "registry/newfound-train"}, "image': .*digest"),
        ({"image": "registry:5000/newfound-train:latest"}, "image': .*digest"),
        ({"stepz": {}}, "stepz"),
        ({"default": {"memory": "16 GB"}}, "default.memory"),
        ({"steps": {"evaluate": {"retries": -1}}}, "steps.evaluate.retries"),
        ({"train_jobs": {"finetune_planner": {"nodes": 0}}}, "train_jobs.finetune_planner.nodes"),
        ({"canary": {"weight": 100}}, "canary.weight"),
    ],
)
def test_a_platform_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    raw = yaml.safe_load((ROOT / PLATFORM).read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**raw, **change}))
    with pytest.raises(ConfigError, match=f"mine.yaml: (unknown )?key '{told}"):
        load_platform(tmp_path / "mine.yaml")


def test_the_platform_file_names_every_setting() -> None:
    raw = yaml.safe_load((ROOT / PLATFORM).read_text(encoding="utf-8"))
    assert set(raw) == set(Platform.model_fields)
    assert set(raw["default"]) == set(type(load_platform(ROOT / PLATFORM).default).model_fields)
    assert set(raw["canary"]) == set(type(load_platform(ROOT / PLATFORM).canary).model_fields)
