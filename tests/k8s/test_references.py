"""Manifests held against each other; and that a slip in a copy of them is caught."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from k8s.kustomize import ROOT
from k8s.workloads import of_kind, workloads
from tests.k8s.conftest import Documents
from tests.k8s.references import ELSEWHERE, problems, referenced

OPERATIONS = ROOT / "docs" / "operations.md"


def test_what_is_named_is_there(overlay: Documents) -> None:
    assert problems(overlay) == []


def test_no_two_objects_are_the_same(overlay: Documents) -> None:
    keys = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in overlay]
    assert len(keys) == len(set(keys))


def test_namespaces_are_made_here(overlay: Documents) -> None:
    made = {one["metadata"]["name"] for one in of_kind(overlay, "Namespace")}
    assert {one["metadata"]["namespace"] for one in overlay if "namespace" in one["metadata"]} - set(ELSEWHERE) == made


def test_secrets_are_named_and_none_is_contained(overlay: Documents) -> None:
    """Each has a line in the documentation: name, key, and how to make it."""
    assert of_kind(overlay, "Secret") == []
    named = {(name, key) for one in workloads(overlay) for kind, name, key in referenced(one) if kind == "Secret"}
    described = set(re.findall(r"^\| `(newfound-[a-z-]+)` \| `([a-z-]+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert {pair for pair in named if pair[1]} <= described
    assert {name for name, key in named if key is None} == {"newfound-object-store"}
    for gateway in of_kind(overlay, "Gateway"):
        for listener in gateway["spec"]["listeners"]:
            assert listener["tls"]["certificateRefs"][0]["name"] == "newfound-tls"


def test_what_passes_the_gateway_is_what_the_gateway_authorises(production: Documents) -> None:
    (route,) = of_kind(production, "HTTPRoute")
    ways = {(match["method"], match["path"]["value"]) for rule in route["spec"]["rules"] for match in rule["matches"]}
    policies = [one for one in of_kind(production, "AuthorizationPolicy") if "targetRefs" in one["spec"]]
    (rule,) = policies[0]["spec"]["rules"]
    (authentication,) = of_kind(production, "RequestAuthentication")
    (jwt,) = authentication["spec"]["jwtRules"]
    assert rule["from"][0]["source"]["requestPrincipals"] == [f"{jwt['issuer']}/*"], "nobody without a token"
    operation = rule["to"][0]["operation"]
    assert {(method, path) for method in operation["methods"] for path in operation["paths"]} == ways


Slip = Callable[[dict[str, Any]], None]


def container(one: dict[str, Any]) -> dict[str, Any]:
    spec = one["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    if "template" in spec:
        return spec["template"]["spec"]["containers"][0]
    return spec.get("transformer", spec)["containers"][0]


def _rename(path: str, value: Any) -> Slip:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]

    def slip(document: dict[str, Any]) -> None:
        place: Any = document
        for key in parents:
            place = place[key]
        assert last in place if isinstance(place, dict) else place[last]
        place[last] = value

    return slip


def _variable(name: str, value: str) -> Slip:
    def slip(document: dict[str, Any]) -> None:
        next(one for one in container(document)["env"] if one["name"] == name)["value"] = value

    return slip


@pytest.mark.parametrize(
    ("kind", "name", "slip", "said"),
    [
        ("Service", "newfound-redis", _rename("metadata.name", "newfound-redys"), "no service newfound-redis"),
        ("Service", "newfound-postgres", _rename("spec.ports.0.port", 5433), "does not listen on 5432"),
        ("Service", "newfound-collector", _rename("spec.ports.0.targetPort", "web"), "leads to web"),
        ("Service", "newfound-collector", _rename("spec.ports.0.name", "web"), "newfound-collector has no http"),
        (
            "Service",
            "newfound-exporter",
            _rename("spec.selector", {"app.kubernetes.io/component": "exporters"}),
            "0 workloads behind it",
        ),
        (
            "InferenceService",
            "newfound",
            _variable("NEWFOUND_PLANNER_URL", "http://newfound-planer-predictor"),
            "no service newfound-planer-predictor",
        ),
        (
            "InferenceService",
            "newfound",
            _variable("NEWFOUND_COLLECTOR_URL", "http://newfound-collector/v1/events"),
            "newfound-collector does not listen on 80",
        ),
        (
            "InferenceService",
            "newfound",
            _rename("spec.transformer.serviceAccountName", "newfound-explorers"),
            "ServiceAccount newfound/newfound-explorers",
        ),
        ("InferenceService", "newfound", _rename("spec.predictor.model.runtime", "ranker"), "no runtime ranker"),
        ("InferenceService", "newfound", _rename("spec.predictor.model.modelFormat.name", "x"), "does not take x"),
        (
            "InferenceService",
            "newfound",
            _rename("spec.transformer.containers.0.envFrom.0.configMapRef.name", "newfound-settings"),
            "no ConfigMap newfound-settings",  # without the hash that kustomize gives it
        ),
        ("ServingRuntime", "newfound-planner", _rename("spec.volumes.0.name", "releases"), "mounts ['release'"),
        ("ServingRuntime", "newfound-ranker", _rename("spec.containers.0.name", "ranker"), "kserve-container"),
        ("Deployment", "newfound-collector", _variable("NEWFOUND_REDIS", "$(REDIS)"), "nothing says what REDIS is"),
        ("CronJob", "newfound-backup", _variable("PGHOST", "newfound-postgresql"), "no service newfound-postgresql"),
        ("PodDisruptionBudget", "newfound-ranker", _rename("spec.selector.matchLabels", {"a": "b"}), "selects nobody"),
        ("NetworkPolicy", "collector", _rename("spec.podSelector.matchLabels", {"a": "b"}), "selects nobody"),
        ("PersistentVolumeClaim", "newfound-reports", _rename("metadata.name", "reports"), "claim newfound/reports"),
        ("HTTPRoute", "newfound", _rename("spec.rules.0.backendRefs.0.port", 8080), "does not listen on 8080"),
        ("HTTPRoute", "newfound", _rename("spec.parentRefs.0.sectionName", "http"), "no listener http"),
        ("HTTPRoute", "newfound", _rename("spec.hostnames", ["example.org"]), "its hosts are not"),
        ("ScaledObject", "newfound-collector", _rename("spec.scaleTargetRef.name", "collector"), "nothing to scale"),
        ("RoleBinding", "newfound-deployer", _rename("roleRef.name", "deployer"), "no Role deployer"),
    ],
)
def test_a_slip_is_caught(production: Documents, kind: str, name: str, slip: Slip, said: str) -> None:
    changed = copy.deepcopy(production)
    slip(next(one for one in of_kind(changed, kind) if one["metadata"]["name"] == name))
    assert any(said in problem for problem in problems(changed)), problems(changed)
