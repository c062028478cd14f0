"""Every object against its schema, strict about fields that nobody knows."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from k8s.kustomize import ROOT
from tests.k8s.conftest import Documents

SCHEMAS = ROOT.parent / "shared" / "k8s-schemas"
KUBERNETES = "1.34"
CORE = (
    "v1",
    "apps/v1",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "admissionregistration.k8s.io/v1",
)
CUSTOM = ("serving.kserve.io", "keda.sh", "monitoring.coreos.com")
# Whose CRDs may be missing among the schemas; docs/operations.md says how a cluster checks them.
OPTIONAL = ("gateway.networking.k8s.io", "security.istio.io")


def group(document: dict[str, Any]) -> str:
    return str(document["apiVersion"]).split("/")[0]


def test_each_object_is_of_a_kind_that_is_known_here(overlay: Documents) -> None:
    strange = {
        document["apiVersion"]
        for document in overlay
        if document["apiVersion"] not in CORE and group(document) not in (*CUSTOM, *OPTIONAL)
    }
    assert strange == set()


def test_core_objects_are_valid(overlay: Documents) -> None:
    checked = [document for document in overlay if document["apiVersion"] in CORE]
    assert len(checked) > 40
    for document in checked:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_misspelt_field_of_a_core_object_is_found(production: Documents) -> None:
    deployment = copy.deepcopy(next(one for one in production if one["kind"] == "Deployment"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@lru_cache(maxsize=1)
def custom_schemas() -> dict[tuple[str, str], jsonschema.protocols.Validator]:
    """Validators by apiVersion and kind."""
    found = {}
    for file in sorted(SCHEMAS.glob("*.yaml")):
        for definition in yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader):
            if not definition or definition["kind"] != "CustomResourceDefinition":
                continue
            for version in definition["spec"]["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                _close(schema)
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
                name = f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"]
                found[name] = jsonschema.Draft202012Validator(schema)
    return found


def _close(schema: Any) -> None:
    """Makes every object refuse fields that it does not list."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
        for value in schema.values():
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)


def custom_problems(document: dict[str, Any]) -> list[str]:
    """What the schema of an object's kind says against it."""
    validator = custom_schemas()[document["apiVersion"], document["kind"]]
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(document)]


needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="the CRD schemas beside the checkout (../shared/k8s-schemas) are absent"
)


@needs_schemas
def test_custom_objects_are_valid(overlay: Documents) -> None:
    for document in overlay:
        known = (document["apiVersion"], document["kind"]) in custom_schemas()
        if group(document) in CUSTOM or known:
            assert custom_problems(document) == [], (document["kind"], document["metadata"]["name"])


@needs_schemas
@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("InferenceService", ("spec", "transformer", "minReplica"), 2),
        ("InferenceService", ("spec", "predictor", "automountServiceAccountToken"), "no"),
        ("ServingRuntime", ("spec", "supportedModelFormat"), []),
        ("ScaledObject", ("spec", "minReplicas"), 1),
        ("ServiceMonitor", ("spec", "endpoint"), []),
        ("PrometheusRule", ("spec", "groups"), [{"name": "newfound", "rule": []}]),
    ],
)
def test_a_misspelt_field_of_a_custom_object_is_found(
    production: Documents, kind: str, path: tuple[str, ...], value: Any
) -> None:
    document = copy.deepcopy(next(one for one in production if one["kind"] == kind))
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    place[last] = value
    assert custom_problems(document)
