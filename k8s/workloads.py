"""Rendered manifests as what runs: pods with their labels, and services with their ports.

KServe makes Deployments and Services of its own kinds; here is what its controller (v0.20, deployment mode Standard)
makes of them, as far as anything in these manifests depends on it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Document = Mapping[str, Any]

COMPONENT: Final = "app.kubernetes.io/component"
_TEMPLATES: Final = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True)
class Workload:
    """Pods of one kind.

    Attributes:
        owner: kind and name of the object that makes them.
        labels: of the pods.
        pod: the pod's specification.
        claims: names of volumes that come from claim templates.
        kserve: whether KServe makes them.
    """

    owner: str
    namespace: str
    labels: Mapping[str, str]
    pod: Mapping[str, Any]
    claims: tuple[str, ...] = ()
    kserve: bool = False

    @property
    def component(self) -> str:
        """The workload's name among newfound's."""
        return self.labels.get(COMPONENT, "")

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All containers, those that only begin included."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]


@dataclass(frozen=True)
class Service:
    """A service: number and name of each port, and the port of the pods behind it (a number, or a name)."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    selector: Mapping[str, str]
    ports: tuple[tuple[int, str, int | str], ...]


def of_kind(documents: Sequence[Document], *kinds: str) -> list[Document]:
    """The objects of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def is_selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes an object with these labels; of its operators it may use `In` alone.

    Raises:
        ValueError: another operator.
    """
    for one in selector.get("matchExpressions", ()):
        if one["operator"] != "In":
            raise ValueError(f"a selector with {one['operator']}; expected In")
        if labels.get(one["key"]) not in one["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def namespace_of(document: Document) -> str:
    """Namespace of an object; empty for what belongs to the whole cluster."""
    return str(document["metadata"].get("namespace", ""))


def workloads(documents: Sequence[Document]) -> list[Workload]:
    """Everything that runs."""
    found = list(_of_templates(documents))
    runtimes = {runtime["metadata"]["name"]: runtime["spec"] for runtime in of_kind(documents, "ServingRuntime")}
    for service in of_kind(documents, "InferenceService"):
        found += _of_inference_service(service, runtimes)
    return found


def services(documents: Sequence[Document]) -> list[Service]:
    """Services that are written here, and those that KServe makes."""
    found = []
    for document in of_kind(documents, "Service"):
        ports = tuple(
            (port["port"], port.get("name", ""), port.get("targetPort", port["port"]))
            for port in document["spec"]["ports"]
        )
        labels, selector = document["metadata"].get("labels", {}), document["spec"]["selector"]
        found.append(Service(document["metadata"]["name"], namespace_of(document), labels, selector, ports))
    for workload in workloads(documents):
        if workload.kserve:
            first = workload.pod["containers"][0]["ports"][0]
            name = workload.labels["app"].removeprefix("isvc.")
            selector = {"app": workload.labels["app"]}
            ports = ((80, first["name"], first["containerPort"]),)
            found.append(Service(name, workload.namespace, workload.labels, selector, ports))
    return found


def _of_templates(documents: Sequence[Document]) -> Iterator[Workload]:
    for document in of_kind(documents, *_TEMPLATES):
        template: Any = document
        for key in _TEMPLATES[document["kind"]]:
            template = template[key]
        claims = tuple(claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", ()))
        owner = f"{document['kind']}/{document['metadata']['name']}"
        yield Workload(owner, namespace_of(document), template["metadata"]["labels"], template["spec"], claims)


def _of_inference_service(document: Document, runtimes: Mapping[str, Any]) -> Iterator[Workload]:
    metadata, spec = document["metadata"], document["spec"]
    if "transformer" in spec:
        pod = copy.deepcopy(dict(spec["transformer"]))
        _set_default_resources(pod["containers"][0])
        args = pod["containers"][0].setdefault("args", [])
        for flag, value in (
            ("--model_name", metadata["name"]),
            ("--predictor_host", f"{metadata['name']}-predictor.{namespace_of(document)}"),
            ("--http_port", "8080"),
        ):
            if flag not in args:
                args += [flag, value]
        yield _kserve(document, "transformer", pod)
    pod = copy.deepcopy(dict(spec["predictor"]))
    if "model" not in pod:  # a predictor of one's own
        _set_default_resources(pod["containers"][0])
        yield _kserve(document, "predictor", pod)
        return
    model = pod.pop("model")
    if model["runtime"] not in runtimes:
        return  # KServe would say so, and make nothing
    runtime = copy.deepcopy(runtimes[model["runtime"]])
    container = runtime["containers"][0]
    container["args"] = [*container.get("args", ()), *model.get("args", ())]
    container["env"] = [*container.get("env", ()), *model.get("env", ())]
    pod["containers"] = [container]
    pod["volumes"] = [*runtime.get("volumes", ()), *pod.get("volumes", ())]
    yield _kserve(document, "predictor", pod)


def _set_default_resources(container: dict[str, Any]) -> None:
    """The webhook's additions to the first container of a transformer, or of a predictor that is no model.

    kserve/kserve, pkg/apis/serving/v1beta1/inference_service_defaults.go, transformer_custom.go, predictor_custom.go,
    with the values of KServe's own ConfigMap (config/configmap/inferenceservice.yaml). A model has none added
    (predictor_model.go): its runtime's container is as it is written.
    """
    for kind in ("requests", "limits"):
        resources = container.setdefault("resources", {}).setdefault(kind, {})
        for name, value in (("cpu", "1"), ("memory", "2Gi")):
            resources.setdefault(name, value)


def _kserve(document: Document, part: str, pod: dict[str, Any]) -> Workload:
    name = document["metadata"]["name"]
    labels = {
        **document["metadata"].get("labels", {}),
        **pod.get("labels", {}),
        "app": f"isvc.{name}-{part}",
        "serving.kserve.io/inferenceservice": name,
        "component": part,
    }
    return Workload(f"InferenceService/{name} {part}", namespace_of(document), labels, pod, kserve=True)
