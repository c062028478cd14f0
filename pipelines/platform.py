"""A cluster's part in a pipeline: image, resources, places, secrets, retries, TrainJobs, the canary.

The pipelines' files are the same here and there. A step is put in its place by `Platform.place`; on this machine there
is no platform, and the step is left as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from newfound.settings import Positive, Settings, load_settings

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
DIGEST: Final = "@sha256:"


class Secret(Settings):
    """A key of a Kubernetes Secret."""

    name: str
    key: str


class Toleration(Settings):
    """As Kubernetes has it."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Settings):
    """Place and resources of a step.

    Attributes:
        cpu: cores requested.
        memory: requested, which is also the limit: what goes beyond is killed rather than its neighbours.
        accelerator: resource name of GPUs, such as nvidia.com/gpu.
        accelerators: how many; 0 means none.
        node_selector: labels of the nodes.
        tolerations: of the nodes' taints.
        retries: after a failure.
        backoff_seconds: before the first retry; it doubles.
        timeout_seconds: of one attempt.
    """

    cpu: Quantity = "2"
    memory: Quantity = "8Gi"
    accelerator: str = "nvidia.com/gpu"
    accelerators: Annotated[int, Field(ge=0)] = 0
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    retries: Annotated[int, Field(ge=0)] = 2
    backoff_seconds: Positive = 60
    timeout_seconds: Positive = 3600

    @property
    def longest_seconds(self) -> int:
        """From the first attempt's start to the last one's end, had each taken all its time."""
        return (self.retries + 1) * self.timeout_seconds + self.backoff_seconds * (2**self.retries - 1)


class TrainJob(Settings):
    """A step that Kubeflow Trainer runs under torchrun.

    Attributes:
        runtime: the (Cluster)TrainingRuntime.
        nodes: pods.
        processes: of each.
        resources: of each pod.
        queue: Kueue's local queue, where there is one.
        service_account: of the pods, for their access to the object store.
    """

    runtime: str = "torch-distributed"
    nodes: Positive = 1
    processes: Positive = 1
    resources: Resources = Resources()
    queue: str | None = None
    service_account: str | None = None


class TrainJobs(Settings):
    """The steps that are TrainJobs; null: the step's own pod does the work."""

    finetune_planner: TrainJob | None = None
    train_ranker: TrainJob | None = None


class Canary(Settings):
    """Deployment of a release that passed its gates.

    Attributes:
        namespace: where the InferenceServices are.
        weight: percentage of the gateway's traffic.
        ready_seconds: how long its pods may take to serve.
    """

    namespace: str = "newfound"
    weight: Annotated[int, Field(gt=0, lt=100)] = 5
    ready_seconds: Positive = 1800


class Platform(Settings):
    """A cluster.

    Attributes:
        image: of every step, by digest or by a tag that is never moved: caches go by its name.
        environment: variables of every step.
        secrets: variables of every step, each a key of a Secret.
        volumes: claims of volumes by the folder at which every step has them, such as Spark's shared one.
        default: every step's resources, but for those in `steps`.
        steps: by the component's name, with hyphens.
        tuning_workers: pods that share the search over the ranker's settings; more than one need `tuning.storage`.
        table_shards_at_once: pods that build the table, each a shard at a time.
        batch_shards: parts that the users are shared out to for batch recommendations.
        batch_shards_at_once: pods that work on them.
        train_jobs: steps that Kubeflow Trainer runs.
        canary: where releases go; null: nowhere.
        fresh: steps that no cached result may stand for, beside those with effects of their own.
        service_account: of the pipelines' pods; null: the profile's own.
        pipeline_root: where artifacts go; null: the profile's own.
    """

    image: str
    environment: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    volumes: dict[str, str] = {}
    default: Resources = Resources()
    steps: dict[str, Resources] = {}
    tuning_workers: Positive = 1
    table_shards_at_once: Positive = 1
    batch_shards: Positive = 1
    batch_shards_at_once: Positive = 1
    train_jobs: TrainJobs = TrainJobs()
    canary: Canary | None = None
    fresh: tuple[str, ...] = ()
    service_account: str | None = None
    pipeline_root: str | None = None

    @field_validator("image")
    @classmethod
    def _never_moves(cls, image: str) -> str:
        tag = image.rpartition("/")[2].partition(":")[2]
        if DIGEST not in image and tag in ("", "latest"):
            raise ValueError("expected a digest, or a tag other than latest: cached results go by the image's name")
        return image

    def place(self, task: Any) -> Any:
        """Puts a task of a pipeline that is being defined in its place."""
        from kfp import kubernetes

        wants = self.steps.get(component_of(task), self.default)
        task.set_container_image(self.image)
        task.set_cpu_request(wants.cpu).set_memory_request(wants.memory).set_memory_limit(wants.memory)
        if wants.accelerators:
            task.set_accelerator_type(wants.accelerator).set_accelerator_limit(wants.accelerators)
        if wants.retries:
            # Argo counts the longest back-off from the first attempt's start, and KFP's own default is an hour.
            longest = f"{wants.longest_seconds}s"
            pause = f"{wants.backoff_seconds}s"
            task.set_retry(wants.retries, pause, backoff_factor=2.0, backoff_max_duration=longest)
        # Not by set_env_variable, which looks through the whole call stack each time: seconds for a pipeline.
        task.container_spec.env = dict(sorted(self.environment.items()))
        for name, secret in sorted(self.secrets.items()):
            kubernetes.use_secret_as_env(task, secret.name, {secret.key: name})
        for folder, claim in sorted(self.volumes.items()):
            kubernetes.mount_pvc(task, claim, folder)
        for label, value in sorted(wants.node_selector.items()):
            kubernetes.add_node_selector(task, label, value)
        for toleration in wants.tolerations:
            given = toleration.model_dump(exclude_none=True)
            kubernetes.add_toleration(task, **given)
        kubernetes.set_timeout(task, wants.timeout_seconds)
        kubernetes.set_security_context(task, run_as_user=1000, run_as_group=1000, run_as_non_root=True)
        if component_of(task) in self.fresh:
            task.set_caching_options(False)
        return task

    def train_job(self, step: str) -> str:
        """Everything that a step must know to make a TrainJob, as JSON; empty where it is to be none."""
        job = getattr(self.train_jobs, step)
        if job is None:
            return ""
        secrets = {name: secret.model_dump() for name, secret in self.secrets.items()}
        given = {"image": self.image, "environment": self.environment, "secrets": secrets, "job": job.model_dump()}
        return json.dumps(given, sort_keys=True)


def load_platform(file: Path) -> Platform:
    """Reads a platform's YAML.

    Raises:
        ConfigError: it cannot be read, or a key or value is not one; the message names it.
    """
    return load_settings(Platform, file)


def component_of(task: Any) -> str:
    """Name of a task's component."""
    return str(task.component_spec.name)
