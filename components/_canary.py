"""A second pair of InferenceServices that serves one release, made from the pair that serves; the gateway's weights.

The canary takes after what is in the cluster, not after a file: image, resources, probes and settings are those of the
pair that serves, but for the release and its planner, which are named. Every release has a pair of its own name: in
KServe's Standard mode `observedGeneration` is that of the Deployment, so an object that is used again cannot tell
whether it is ready as it was or as it is to be.
"""

import copy
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from components._kube import patiently
from newfound.errors import GateError, NewfoundError

SERVING: Final = ("serving.kserve.io", "v1beta1")
ROUTES: Final = ("gateway.networking.k8s.io", "v1")
NAME, PLANNER = "newfound", "newfound-planner"
PLANNER_NAME, PLANNER_URL = "NEWFOUND_PLANNER", "NEWFOUND_PLANNER_URL"
MANAGER: Final = "newfound-pipeline"
POLL_S: Final = 5.0
_TRACKERS: Final = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "argocd.argoproj.io/",
    "helm.toolkit.fluxcd.io/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
)
log = logging.getLogger("newfound.canary")


class DeployError(NewfoundError):
    """A canary that could not be applied, or whose pods do not serve; the message names the object."""


def deploy(
    published: Mapping[str, Any],
    gates: Mapping[str, Mapping[str, Any]],
    canary: Mapping[str, Any],
    poll_s: float = POLL_S,
) -> tuple[list[dict[str, Any]], dict[str, float | int | str]]:
    """Applies both services, waits until they serve, and only then moves the weights.

    Args:
        published: the release's id as `release`, its planner's name as `planner` (empty: there is none to serve).
        gates: by name, with `passed`.
        canary: `namespace`, `weight` (percent) and `ready_seconds`.
        poll_s: between two looks.

    Returns:
        What was applied, and measures.

    Raises:
        GateError: a gate did not hold; nothing is applied.
        DeployError: see there.
    """
    from kubernetes import client, config
    from kubernetes.client import ApiException

    release, planner = published["release"], published["planner"]
    failed = [name for name, gate in gates.items() if not gate["passed"]]
    if failed or not gates:
        raise GateError(
            f"release {release}: gates that do not hold: {', '.join(failed) or 'none was judged'}; not deployed"
        )
    config.load_config()
    objects, namespace = client.CustomObjectsApi(), canary["namespace"]
    where = (*SERVING, namespace, "inferenceservices")
    route_at = (*ROUTES, namespace, "httproutes", NAME)
    began = time.monotonic()
    try:
        applied = []
        for name in (PLANNER, NAME) if planner else (NAME,):
            stable = patiently(objects.get_namespaced_custom_object, *where, name, pause_s=poll_s)
            body = canary_of(stable, release, planner)
            _make(objects, where, body)
            applied.append(body)
        for body in applied:
            _wait(objects, where, body["metadata"]["name"], began + canary["ready_seconds"], poll_s)
        route = patiently(objects.get_namespaced_custom_object, *route_at, pause_s=poll_s)
        patch = weights_of(route, release, canary["weight"])
        objects.patch_namespaced_custom_object(*route_at, patch, field_manager=MANAGER)
    except ApiException as error:
        raise DeployError(
            f"release {release}: the cluster answered {error.status} {error.reason}: {error.body}"
        ) from error
    log.info("release %s: %d %% of the traffic", release, canary["weight"])
    measures = {"release": release, "weight": canary["weight"], "ready_seconds": round(time.monotonic() - began, 1)}
    return [*applied, {"kind": "HTTPRoute", "metadata": {"name": NAME}, "spec": patch["spec"]}], measures


def canary_of(stable: Mapping[str, Any], release: str, planner: str) -> dict[str, Any]:
    """The InferenceService that serves `release` beside `stable`.

    Args:
        stable: the InferenceService that serves.
        release: id of the release.
        planner: name of the release's planner.

    Raises:
        DeployError: `stable` is no service of newfound's.
    """
    name = stable["metadata"]["name"]
    spec = copy.deepcopy(stable["spec"])
    try:
        if name == PLANNER:
            _set(spec["predictor"]["model"].setdefault("env", []), PLANNER_NAME, planner)
            for container in spec["predictor"].get("initContainers", []):
                _set(container.setdefault("env", []), PLANNER_NAME, planner)
        else:
            explorer = spec["transformer"]["containers"][0]
            explorer["args"] = [*_without_release(explorer.get("args", [])), "--release", release]
            _set(explorer.setdefault("env", []), PLANNER_URL, f"http://{canary_name(PLANNER, release)}-predictor")
            ranker = spec["predictor"]["model"]
            # KServe puts a model's arguments after those of its runtime.
            ranker["args"] = [*_without_release(ranker.get("args", [])), "--release", release]
    except (KeyError, IndexError, TypeError) as error:
        raise DeployError(f"InferenceService {name}: no {error} in its spec; expected one of newfound's") from error
    for part in ("transformer", "predictor"):
        if part in spec:
            spec[part]["minReplicas"] = 1
            _scale_on_its_own(spec[part], name, canary_name(name, release))
    annotations = _untracked(stable["metadata"].get("annotations", {}))
    labels = {**_untracked(stable["metadata"].get("labels", {})), "newfound/release": release}
    return {
        "apiVersion": "/".join(SERVING),
        "kind": "InferenceService",
        "metadata": {"name": canary_name(name, release), "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def _untracked(marks: Mapping[str, str]) -> dict[str, str]:
    """Labels or annotations without those by which controllers know, and remove, what is theirs."""
    return {name: value for name, value in marks.items() if not name.startswith(_TRACKERS)}


def canary_name(name: str, release: str) -> str:
    """An InferenceService's name beside the one that serves, by the release's digest: KServe labels pods with it."""
    return f"{name}-canary-{release.rpartition('-')[2].lower()}"


def weights_of(route: Mapping[str, Any], release: str, weight: int) -> dict[str, Any]:
    """The merge patch that gives the canary's explorer a percentage of the first rule's traffic.

    It names the version that it was made from: a route that somebody else changes meanwhile is left as it is.

    Raises:
        DeployError: the first rule does not lead to the explorer.
    """
    rules = copy.deepcopy(route["spec"].get("rules") or [{}])
    mine = next((one for one in rules[0].get("backendRefs", []) if one["name"] == f"{NAME}-transformer"), None)
    if mine is None:
        raise DeployError(f"HTTPRoute {NAME}: its first rule does not lead to {NAME}-transformer; no weights to move")
    theirs = {**mine, "name": f"{canary_name(NAME, release)}-transformer", "weight": weight}
    rules[0]["backendRefs"] = [{**mine, "weight": 100 - weight}, theirs]
    return {"metadata": {"resourceVersion": route["metadata"]["resourceVersion"]}, "spec": {"rules": rules}}


def _scale_on_its_own(part: dict[str, Any], name: str, canary: str) -> None:
    """Has KEDA ask about the canary's own requests: the queries name the service whose metrics they count."""
    for metric in part.get("autoScaling", {}).get("metrics", []):
        asked = metric.get("external", {}).get("metric", {})
        for end in ("-transformer", "-predictor"):
            asked["query"] = asked.get("query", "").replace(f'"{name}{end}"', f'"{canary}{end}"')


def _make(objects: Any, where: tuple[str, ...], body: dict[str, Any]) -> None:
    """Makes the object; one that is there already is this release's, of an earlier attempt, and stays."""
    from kubernetes.client import ApiException

    try:
        patiently(objects.create_namespaced_custom_object, *where, body, field_manager=MANAGER)
    except ApiException as error:
        if error.status != 409:
            raise


def _wait(objects: Any, where: tuple[str, ...], name: str, end: float, poll_s: float) -> None:
    while True:
        status = patiently(objects.get_namespaced_custom_object, *where, name, pause_s=poll_s).get("status", {})
        ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {})
        if ready.get("status") == "True":
            return
        if time.monotonic() > end:
            why = f"{ready.get('reason', 'no condition')}: {ready.get('message', '')}".rstrip(": ")
            raise DeployError(f"InferenceService {name}: not ready in time ({why}); the weights are as they were")
        time.sleep(poll_s)


def _set(env: list[dict[str, Any]], name: str, value: str) -> None:
    env[:] = [*(one for one in env if one["name"] != name), {"name": name, "value": value}]


def _without_release(args: list[str]) -> list[str]:
    if "--release" not in args:
        return args
    at = args.index("--release")
    return args[:at] + args[at + 2 :]
