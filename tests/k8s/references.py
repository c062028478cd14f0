"""What manifests name in each other, looked up: each function returns what is wrong, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from k8s.workloads import Service, Workload, is_selected, namespace_of, of_kind, services, workloads
from tests.k8s.conftest import Documents

OBJECTS = {"configMap": "ConfigMap", "secret": "Secret", "persistentVolumeClaim": "PersistentVolumeClaim"}
PROFILE = "newfound-pipelines"  # Kubeflow's, a namespace and no host
ELSEWHERE = ("kubeflow", "monitoring")  # namespaces of others, whose own policies leave newfound out
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# A host of this namespace with or without a port: in a URL, before a database's name, in Redis' connection string.
_HOST = re.compile(r"(?:^|//|@)(newfound-[a-z-]+)(?::(\d+))?(?=[/,]|$)")


def problems(documents: Documents) -> list[str]:
    """Everything that does not fit together."""
    found: list[str] = []
    for check in (names, volumes, accounts, runtimes, variables, selectors, hosts, routes, watched, roles):
        found += check(documents)
    return found


def names(documents: Documents) -> Iterator[str]:
    """ConfigMaps exist, with the key asked for, and each is used by somebody."""
    config = {(namespace_of(one), one["metadata"]["name"]): one["data"] for one in of_kind(documents, "ConfigMap")}
    used = set()
    for workload in workloads(documents):
        for what, name, key in referenced(workload):
            if what != "ConfigMap":
                continue
            used.add((workload.namespace, name))
            data = config.get((workload.namespace, name))
            if data is None:
                yield f"{workload.owner}: no ConfigMap {name}"
            elif key is not None and key not in data:
                yield f"{workload.owner}: ConfigMap {name} has no {key}"
    for gateway in of_kind(documents, "Gateway"):
        used.add((namespace_of(gateway), gateway["spec"]["infrastructure"]["parametersRef"]["name"]))
    for (namespace, name), _ in config.items():
        if (namespace, name) not in used and not name.startswith("newfound-dashboards"):
            yield f"ConfigMap {name}: nobody uses it"


def referenced(workload: Workload) -> Iterator[tuple[str, str, str | None]]:
    """Kind, name and key of every ConfigMap, Secret and claim that a pod names."""
    for container in workload.containers:
        for source in container.get("envFrom", ()):
            for kind in ("ConfigMap", "Secret"):
                reference = source.get(f"{kind[0].lower()}{kind[1:]}Ref")
                if reference:
                    yield kind, reference["name"], None
        for variable in container.get("env", ()):
            for kind in ("ConfigMap", "Secret"):
                reference = variable.get("valueFrom", {}).get(f"{kind[0].lower()}{kind[1:]}KeyRef")
                if reference:
                    yield kind, reference["name"], reference["key"]
    for volume in workload.pod.get("volumes", ()):
        for field, kind in OBJECTS.items():
            if field in volume:
                yield (
                    kind,
                    volume[field].get("name") or volume[field].get("secretName") or volume[field]["claimName"],
                    None,
                )


def volumes(documents: Documents) -> Iterator[str]:
    """Mounts have a volume, volumes a mount, and claims exist and are used."""
    claims = {(namespace_of(one), one["metadata"]["name"]) for one in of_kind(documents, "PersistentVolumeClaim")}
    used = set()
    for workload in workloads(documents):
        there = [volume["name"] for volume in workload.pod.get("volumes", ())] + list(workload.claims)
        mounted = [mount["name"] for one in workload.containers for mount in one.get("volumeMounts", ())]
        if len(there) != len(set(there)) or set(there) != set(mounted):
            yield f"{workload.owner}: volumes {sorted(there)}, mounts {sorted(set(mounted))}"
        for container in workload.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
            if len(paths) != len(set(paths)):
                yield f"{workload.owner}: two mounts at one path: {paths}"
        for kind, name, _ in referenced(workload):
            if kind == "PersistentVolumeClaim":
                used.add((workload.namespace, name))
    for namespace, name in used ^ claims:
        yield f"claim {namespace}/{name}: named and made are not the same"


def accounts(documents: Documents) -> Iterator[str]:
    """Every workload has an account of its own, which is there."""
    there = {(namespace_of(one), one["metadata"]["name"]) for one in of_kind(documents, "ServiceAccount")}
    used = {
        (workload.namespace, workload.pod["serviceAccountName"])
        for workload in workloads(documents)
        if "serviceAccountName" in workload.pod
    }
    for namespace, name in used ^ there:
        yield f"ServiceAccount {namespace}/{name}: named and made are not the same"


def runtimes(documents: Documents) -> Iterator[str]:
    """A model's runtime exists, and takes its format and protocol."""
    there = {one["metadata"]["name"]: one["spec"] for one in of_kind(documents, "ServingRuntime")}
    for service in of_kind(documents, "InferenceService"):
        model, name = service["spec"]["predictor"]["model"], service["metadata"]["name"]
        runtime = there.get(model["runtime"])
        if runtime is None:
            yield f"InferenceService {name}: no runtime {model['runtime']}"
            continue
        if model["modelFormat"]["name"] not in [one["name"] for one in runtime["supportedModelFormats"]]:
            yield f"InferenceService {name}: its runtime does not take {model['modelFormat']['name']}"
        if model["protocolVersion"] not in runtime["protocolVersions"]:
            yield f"InferenceService {name}: its runtime does not speak {model['protocolVersion']}"
    for service in of_kind(documents, "InferenceService"):
        if service["metadata"]["annotations"].get("serving.kserve.io/deploymentMode") != "Standard":
            yield f"InferenceService {service['metadata']['name']}: deploymentMode is not Standard"
    for workload in workloads(documents):
        if workload.kserve and workload.pod["containers"][0]["name"] != "kserve-container":
            yield f"{workload.owner}: its container must be named kserve-container"


def environment(workload: Workload, container: Mapping[str, Any], documents: Documents) -> dict[str, str]:
    """A container's variables as it finds them; what comes out of a Secret is `secret`."""
    config = {(namespace_of(one), one["metadata"]["name"]): one["data"] for one in of_kind(documents, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= config.get((workload.namespace, source["configMapRef"]["name"]), {})
    for variable in container.get("env", ()):
        value = variable.get("value", "secret")
        found[variable["name"]] = expanded(value, found)
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Text with $(NAME) replaced, as Kubernetes does it: what is unknown stays."""
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)


def variables(documents: Documents) -> Iterator[str]:
    """Whatever is written as $(NAME) is defined, and before it is used."""
    for workload in workloads(documents):
        for container in workload.containers:
            known = environment(workload, container, documents)
            texts = [*container.get("command", ()), *container.get("args", ()), *known.values()]
            for text in texts:
                if left := _VARIABLE.findall(expanded(text, known)):
                    yield f"{workload.owner}: nothing says what {', '.join(left)} is in {text!r}"


def selectors(documents: Documents) -> Iterator[str]:
    """Services, budgets and policies select pods that there are; services' ports are open behind them."""
    running = workloads(documents)

    def selected(labels: Mapping[str, str], namespace: str) -> list[Workload]:
        return by_selector({"matchLabels": labels}, namespace)

    def by_selector(selector: Mapping[str, Any], namespace: str) -> list[Workload]:
        return [one for one in running if one.namespace == namespace and is_selected(selector, one.labels)]

    for service in services(documents):
        behind = selected(service.selector, service.namespace)
        if len(behind) != 1:
            yield f"Service {service.name}: {len(behind)} workloads behind it; expected one"
            continue
        open_ports = [
            value
            for container in behind[0].containers
            for port in container.get("ports", ())
            for value in (port["containerPort"], port["name"])
        ]
        for number, _, target in service.ports:
            if target not in open_ports:
                yield f"Service {service.name}: port {number} leads to {target}, which {behind[0].owner} does not open"
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "AuthorizationPolicy"):
        for one in of_kind(documents, kind):
            spec, namespace = one["spec"], namespace_of(one)
            selector = spec.get("podSelector", spec.get("selector", {}))
            if namespace not in ELSEWHERE and not by_selector(selector, namespace) and "targetRefs" not in spec:
                yield f"{kind} {one['metadata']['name']}: selects nobody"
            for expression in selector.get("matchExpressions", ()):
                there = {workload.labels.get(expression["key"], "") for workload in running}
                if missing := set(expression["values"]) - there:
                    yield f"{kind} {one['metadata']['name']}: selects nobody by {', '.join(sorted(missing))}"
    for workload in running:
        for spread in workload.pod.get("topologySpreadConstraints", ()):
            if not spread["labelSelector"]["matchLabels"].items() <= workload.labels.items():
                yield f"{workload.owner}: is spread by labels that it does not have"


def hosts(documents: Documents) -> Iterator[str]:
    """Every host of this namespace that an environment or an argument names is a service, and has the port."""
    there: dict[str, Service] = {service.name: service for service in services(documents)}
    for workload in workloads(documents):
        for container in workload.containers:
            known = environment(workload, container, documents)
            texts = [expanded(text, known) for text in container.get("args", ())] + list(known.values())
            for text in texts:
                if text == PROFILE:
                    continue
                for name, port in _HOST.findall(text.removesuffix(f".{workload.namespace}")):
                    service = there.get(name)
                    default = 5432 if name == text == known.get("PGHOST") else 80
                    if service is None:
                        yield f"{workload.owner}: there is no service {name} ({text!r})"
                    elif int(port or default) not in [number for number, _, _ in service.ports]:
                        yield f"{workload.owner}: {name} does not listen on {port or default} ({text!r})"


def routes(documents: Documents) -> Iterator[str]:
    """The route leads from a listener of the gateway to services and ports that there are."""
    there = {service.name: [number for number, _, _ in service.ports] for service in services(documents)}
    gateways = {(namespace_of(one), one["metadata"]["name"]): one["spec"] for one in of_kind(documents, "Gateway")}
    for route in of_kind(documents, "HTTPRoute"):
        name = route["metadata"]["name"]
        for parent in route["spec"]["parentRefs"]:
            gateway = gateways.get((parent["namespace"], parent["name"]))
            listeners = {one["name"]: one for one in gateway["listeners"]} if gateway else {}
            listener = listeners.get(parent["sectionName"])
            if listener is None:
                yield f"HTTPRoute {name}: no listener {parent['sectionName']} of a gateway {parent['name']}"
                continue
            if listener["hostname"] not in route["spec"]["hostnames"]:
                yield f"HTTPRoute {name}: its hosts are not {listener['hostname']}"
            admitted = listener["allowedRoutes"]["namespaces"]["selector"]["matchLabels"]
            if admitted != {"kubernetes.io/metadata.name": namespace_of(route)}:
                yield f"HTTPRoute {name}: the gateway does not admit routes of {namespace_of(route)}"
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend["port"] not in there.get(backend["name"], ()):
                    yield f"HTTPRoute {name}: {backend['name']} does not listen on {backend['port']}"
            if len(rule["backendRefs"]) > 1 and sum(one["weight"] for one in rule["backendRefs"]) != 100:
                yield f"HTTPRoute {name}: weights do not sum to 100"
    for policy in of_kind(documents, "RequestAuthentication", "AuthorizationPolicy"):
        for target in policy["spec"].get("targetRefs", ()):
            if (namespace_of(policy), target["name"]) not in gateways:
                yield f"{policy['kind']} {policy['metadata']['name']}: no gateway {target['name']}"


def watched(documents: Documents) -> Iterator[str]:
    """ServiceMonitors find a service with the port for every workload that they name; ScaledObjects what they scale."""
    there = services(documents)
    for monitor in of_kind(documents, "ServiceMonitor"):
        (expression,) = monitor["spec"]["selector"]["matchExpressions"]
        for value in expression["values"]:
            matching = [one for one in there if one.labels.get(expression["key"]) == value]
            if not matching:
                yield f"ServiceMonitor {monitor['metadata']['name']}: no service of {value}"
            for service in matching:
                for endpoint in monitor["spec"]["endpoints"]:
                    if endpoint["port"] not in [name for _, name, _ in service.ports]:
                        yield f"ServiceMonitor {monitor['metadata']['name']}: {service.name} has no {endpoint['port']}"
    deployments = {one["metadata"]["name"]: one for one in of_kind(documents, "Deployment")}
    for scaled in of_kind(documents, "ScaledObject"):
        target = deployments.get(scaled["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"ScaledObject {scaled['metadata']['name']}: nothing to scale"
        elif "replicas" in target["spec"]:
            yield f"ScaledObject {scaled['metadata']['name']}: its Deployment sets replicas as well"


def roles(documents: Documents) -> Iterator[str]:
    """Bindings name roles that there are."""
    there = {(one["kind"], one["metadata"]["name"]) for one in of_kind(documents, "Role", "ClusterRole")}
    for binding in of_kind(documents, "RoleBinding", "ClusterRoleBinding"):
        reference = binding["roleRef"]
        if (reference["kind"], reference["name"]) not in there:
            yield f"{binding['kind']} {binding['metadata']['name']}: no {reference['kind']} {reference['name']}"
