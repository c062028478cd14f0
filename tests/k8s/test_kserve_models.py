"""KServe's kinds against the classes of KServe's own Python package: every field known, every value of its type."""

from __future__ import annotations

import copy
import re
from typing import Any

import kserve
import kubernetes.client
import pytest

from k8s.workloads import of_kind
from tests.k8s.conftest import Documents

KINDS = {"InferenceService": "V1beta1InferenceService", "ServingRuntime": "V1alpha1ServingRuntime"}
PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def problems(value: Any, kind: str, path: str = "$") -> list[str]:
    """What a generated model's class says against a value."""
    if kind in PLAIN:
        right = isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if right else [f"{path}: {value!r} is no {kind}"]
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: expected a list"]
        return [text for at, one in enumerate(value) for text in problems(one, listed[1], f"{path}[{at}]")]
    if mapped := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{path}: expected a mapping"]
        return [text for key, one in value.items() for text in problems(one, mapped[1], f"{path}.{key}")]
    model = getattr(kserve, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None or not hasattr(model, "openapi_types"):
        return []  # object, a quantity, a number or a string
    if not isinstance(value, dict):
        return [f"{path}: expected an object"]
    fields = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    return [
        text
        for key, one in value.items()
        for text in (problems(one, fields[key], f"{path}.{key}") if key in fields else [f"{path}: no field {key}"])
    ]


def test_kserve_knows_every_field(overlay: Documents) -> None:
    documents = of_kind(overlay, *KINDS)
    assert len(documents) >= 4
    for document in documents:
        assert problems(document, KINDS[document["kind"]]) == []


@pytest.mark.parametrize(
    ("kind", "part", "field", "value", "said"),
    [
        ("InferenceService", "transformer", "minReplica", 2, "no field minReplica"),
        ("InferenceService", "predictor", "minReplicas", "2", "is no int"),
        ("InferenceService", "predictor", "volumes", [{"name": "x", "emptydir": {}}], "no field emptydir"),
        ("ServingRuntime", None, "supportedModelFormat", [], "no field supportedModelFormat"),
        ("ServingRuntime", None, "protocolVersions", "v1", "expected a list"),
    ],
)
def test_a_slip_is_caught(
    production: Documents, kind: str, part: str | None, field: str, value: Any, said: str
) -> None:
    document = copy.deepcopy(of_kind(production, kind)[0])
    (document["spec"][part] if part else document["spec"])[field] = value
    assert any(said in text for text in problems(document, KINDS[kind]))
