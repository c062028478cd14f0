"""A step's work as a Kubeflow Trainer TrainJob: its pods fetch the inputs, run torchrun, and put the output back.

Pods and step share nothing but the object store. A TrainJob is named after all that it depends on, so a step that is
retried goes on waiting for the same one, and replaces it where it failed. Job and draft go when the output is here.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import fsspec

from components._kube import patiently
from newfound.errors import NewfoundError

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
TASK: Final = "NEWFOUND_TASK"
MEASURES: Final = "measures.json"
POLL_S: Final = 10.0
log = logging.getLogger("newfound.job")


class TrainJobError(NewfoundError):
    """A TrainJob that failed, took too long, or could not be made; the message names it."""


def run_train_job(
    step: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], settings: str, job: str, poll_s: float = POLL_S
) -> dict[str, Any]:
    """Makes the TrainJob of a step, waits for it, and fetches what it wrote.

    Args:
        step: the component, which the job's processes run again without a job.
        inputs: its kfp artifacts by their names; None where an optional one is absent.
        outputs: the one that it makes, likewise.
        settings: the step's settings, passed on.
        job: JSON: `image`, `environment`, `secrets` and `job`, a `pipelines.platform.TrainJob`.
        poll_s: between two looks.

    Returns:
        The step's measures.

    Raises:
        TrainJobError: see there.
    """
    from kubernetes import client, config
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    given = json.loads(job)
    reads = {name: store_url(one.uri) for name, one in inputs.items() if one is not None}
    ((made, output),) = outputs.items()
    task = {"step": step, "inputs": reads, "settings": settings, "made": made, "output": f"{store_url(output.uri)}.job"}
    identity = hashlib.sha256(json.dumps([step, reads, settings, given], sort_keys=True).encode()).hexdigest()
    name = f"newfound-{step.replace('_', '-')}-{identity[:10]}"
    config.load_config()
    jobs, namespace = client.CustomObjectsApi(), _namespace()
    where = (GROUP, VERSION, namespace, PLURAL)
    try:
        found = _find(jobs, where, name, poll_s)
        if found is not None and _condition(found, "Failed"):
            _remove(jobs, where, name, poll_s)
            _until(lambda: _find(jobs, where, name, poll_s) is None, name, 300, poll_s)
            found = None
        if found is None:
            found = _make(jobs, where, manifest(name, given, task), poll_s)
        log.info("TrainJob %s/%s: %d pods", namespace, name, given["job"]["nodes"])
        limit = given["job"]["resources"]["timeout_seconds"]
        _until(lambda: _is_done(_find(jobs, where, name, poll_s), name), name, limit, poll_s)
        measures = _take_over(_output_of(found), Path(output.path))
        _remove(jobs, where, name, poll_s)
    except ApiException as error:
        raise TrainJobError(
            f"TrainJob {name}: the cluster answered {error.status} {error.reason}: {error.body}"
        ) from error
    except HTTPError as error:
        raise TrainJobError(f"TrainJob {name}: the cluster's API is away ({type(error).__name__})") from error
    return measures


def _output_of(job: Mapping[str, Any]) -> str:
    """Output of a TrainJob: the one that is found may have been made by an attempt with another place."""
    variables = {one["name"]: one.get("value") for one in job["spec"]["trainer"]["env"]}
    return str(json.loads(str(variables[TASK]))["output"])


def _take_over(draft: str, out: Path) -> dict[str, Any]:
    """Fetches what a job wrote, and removes it there."""
    fs, path = fsspec.core.url_to_fs(draft)
    fs.get(f"{path}/output/", f"{out}/", recursive=True)
    measures: dict[str, Any] = json.loads(fs.cat_file(f"{path}/{MEASURES}"))
    fs.rm(path, recursive=True)
    return measures


def manifest(name: str, given: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The TrainJob.

    Args:
        name: of the object.
        given: see `job` of `run_train_job`.
        task: what `components._trainee` is to do.
    """
    job = given["job"]
    wants = job["resources"]
    resources = {"cpu": wants["cpu"], "memory": wants["memory"]}
    if wants["accelerators"]:
        resources[wants["accelerator"]] = str(wants["accelerators"])
    secrets = {
        variable: {"valueFrom": {"secretKeyRef": secret}} for variable, secret in sorted(given["secrets"].items())
    }
    variables = {**{k: {"value": v} for k, v in sorted(given["environment"].items())}, **secrets}
    pod: dict[str, Any] = {}
    if job["service_account"]:
        pod["serviceAccountName"] = job["service_account"]
    if wants["node_selector"]:
        pod["nodeSelector"] = wants["node_selector"]
    if wants["tolerations"]:
        pod["tolerations"] = [{k: v for k, v in one.items() if v is not None} for one in wants["tolerations"]]
    labels = {"app.kubernetes.io/part-of": "newfound", "app.kubernetes.io/component": task["step"].replace("_", "-")}
    if job["queue"]:
        labels["kueue.x-k8s.io/queue-name"] = job["queue"]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": job["runtime"]},
            "trainer": {
                "image": given["image"],
                "command": ["python", "-m", "components._trainee"],
                "numNodes": job["nodes"],
                "numProcPerNode": job["processes"],
                "resourcesPerNode": {"requests": resources, "limits": resources},
                "env": [
                    {"name": TASK, "value": json.dumps(task, sort_keys=True)},
                    *({"name": variable, **source} for variable, source in variables.items()),
                ],
            },
            "activeDeadlineSeconds": wants["timeout_seconds"],
            "runtimePatches": [_patch(pod)],
        },
    }


def _patch(pod: dict[str, Any]) -> dict[str, Any]:
    """Additions to the runtime's job of the training pods, called node.

    The pods stay out of the mesh of a Kubeflow profile: its proxies break the connections of torchrun's processes.
    """
    metadata = {"labels": {"sidecar.istio.io/inject": "false"}}
    job = {"name": "node", "template": {"spec": {"template": {"metadata": metadata, "spec": pod}}}}
    return {
        "manager": "newfound.pipelines/manager",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }


def store_url(uri: str) -> str:
    """The object store's URL of an artifact as fsspec knows it; KFP says minio:// of any S3 with its own endpoint."""
    return f"s3://{uri.removeprefix('minio://')}" if uri.startswith("minio://") else uri


def _find(jobs: Any, where: tuple[str, ...], name: str, poll_s: float) -> dict[str, Any] | None:
    from kubernetes.client import ApiException

    try:
        return dict(patiently(jobs.get_namespaced_custom_object, *where, name, pause_s=poll_s))
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _make(jobs: Any, where: tuple[str, ...], body: dict[str, Any], poll_s: float) -> dict[str, Any]:
    """Makes the job; one that is there already was made by a call whose answer was lost."""
    from kubernetes.client import ApiException

    try:
        return dict(patiently(jobs.create_namespaced_custom_object, *where, body, pause_s=poll_s))
    except ApiException as error:
        if error.status != 409:
            raise
        name = body["metadata"]["name"]
        return dict(patiently(jobs.get_namespaced_custom_object, *where, name, pause_s=poll_s))


def _remove(jobs: Any, where: tuple[str, ...], name: str, poll_s: float) -> None:
    from kubernetes.client import ApiException

    try:
        patiently(jobs.delete_namespaced_custom_object, *where, name, propagation_policy="Foreground", pause_s=poll_s)
    except ApiException as error:
        if error.status != 404:
            raise


def _condition(job: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def _is_done(job: Mapping[str, Any] | None, name: str) -> bool:
    if job is None:
        raise TrainJobError(f"TrainJob {name}: somebody removed it")
    if failed := _condition(job, "Failed"):
        raise TrainJobError(f"TrainJob {name}: {failed.get('reason', 'failed')}: {failed.get('message', '')}")
    return _condition(job, "Complete") is not None


def _until(done: Any, name: str, seconds: float, poll_s: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TrainJobError(f"TrainJob {name}: not done after {seconds:g} s")
        time.sleep(poll_s)


def _namespace() -> str:
    """The step's own, as every pod with a service account knows it."""
    mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return mounted.read_text(encoding="utf-8").strip() if mounted.is_file() else "default"
