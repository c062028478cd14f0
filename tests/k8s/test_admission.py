"""What a profile's pods may make among newfound's services: the policy's own expressions, evaluated.

kubernetes/kubernetes, staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating: variables are evaluated in
their order, every validation must be true, for every binding with its own parameter.
"""

from __future__ import annotations

import copy
from typing import Any

import cel
import pytest

from components._canary import canary_of
from k8s.workloads import of_kind
from tests.k8s.canary import NAMED
from tests.k8s.conftest import Documents

RELEASE = "20260101T000000-0123456789ab"
EDITOR = "system:serviceaccount:newfound-pipelines:default-editor"


def refusals(documents: Documents, made: dict[str, Any], user: str = EDITOR) -> list[str]:
    """The messages of the validations that an object does not pass."""
    (policy,) = of_kind(documents, "ValidatingAdmissionPolicy")
    spec = policy["spec"]
    assert set(spec) == {
        "failurePolicy",
        "paramKind",
        "matchConstraints",
        "matchConditions",
        "variables",
        "validations",
    }
    request = {"userInfo": {"username": user}}
    if not all(cel.evaluate(one["expression"], {"request": request}) for one in spec["matchConditions"]):
        return []
    served = {one["metadata"]["name"]: one for one in of_kind(documents, "InferenceService")}
    said = []
    for binding in of_kind(documents, "ValidatingAdmissionPolicyBinding"):
        known: dict[str, Any] = {"object": made, "params": served[binding["spec"]["paramRef"]["name"]], "variables": {}}
        for variable in spec["variables"]:
            known["variables"][variable["name"]] = cel.evaluate(variable["expression"], known)
        said += [one["message"] for one in spec["validations"] if not cel.evaluate(one["expression"], known)]
    return said


@pytest.fixture
def pair(production: Documents) -> dict[str, dict[str, Any]]:
    """A canary's two services, as the pipeline makes them."""
    return {one["metadata"]["name"]: canary_of(one, RELEASE, NAMED) for one in of_kind(production, "InferenceService")}


def test_the_pipelines_canary_passes(production: Documents, pair: dict[str, dict[str, Any]]) -> None:
    for made in pair.values():
        assert refusals(production, made) == []


def test_others_than_the_profile_are_not_asked(production: Documents) -> None:
    theirs = {"metadata": {"name": "anything"}, "spec": {"predictor": {"model": {}}}}
    assert refusals(production, theirs, "kubernetes-admin") == []


def _explorer(made: dict[str, Any]) -> dict[str, Any]:
    return dict.__getitem__(made["spec"]["transformer"], "containers")[0]


SLIPS = {
    "an image": lambda made: _explorer(made).update(image="registry.example.com/other:1"),
    "a command": lambda made: _explorer(made).update(command=["sh", "-c", "env"]),
    "an argument": lambda made: _explorer(made)["args"].append("--predictor_host=elsewhere"),
    "a secret": lambda made: _explorer(made)["env"].append(
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "newfound-postgres", "key": "superuser"}}}
    ),
    "all of a secret": lambda made: _explorer(made)["envFrom"].append({"secretRef": {"name": "newfound-postgres"}}),
    "a second container": lambda made: made["spec"]["transformer"]["containers"].append(copy.deepcopy(_explorer(made))),
    "a volume": lambda made: made["spec"]["transformer"]["volumes"].append(
        {"name": "x", "secret": {"secretName": "a"}}
    ),
    "an account": lambda made: made["spec"]["predictor"].update(serviceAccountName="newfound-postgres"),
    "a model's image": lambda made: made["spec"]["predictor"]["model"].update(image="other"),
    "a model's secret": lambda made: made["spec"]["predictor"]["model"].update(
        env=[{"name": "NEWFOUND_PLANNER", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
    ),
    "a runtime": lambda made: made["spec"]["predictor"]["model"].update(runtime="kserve-vllmserver"),
    "a predictor of its own": lambda made: made["spec"]["predictor"].update(containers=[{"image": "x"}]),
    "a name": lambda made: made["metadata"].update(name="newfound"),
    "another name": lambda made: made["metadata"].update(name="notebook"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_is_no_copy_is_refused(production: Documents, pair: dict[str, dict[str, Any]], slip: str) -> None:
    SLIPS[slip](pair["newfound"])
    assert refusals(production, pair["newfound"])


FETCHING = {
    "an image": lambda container: container.update(image="other"),
    "an argument": lambda container: container["args"].append("--releases=s3://elsewhere"),
    "a secret": lambda container: container["env"].append(
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "newfound-postgres", "key": "superuser"}}}
    ),
    "a variable": lambda container: container["env"].append({"name": "AWS_ENDPOINT_URL", "value": "http://elsewhere"}),
    "no planner's name": lambda container: container["env"].append({"name": "NEWFOUND_PLANNER", "value": "../x"}),
}


@pytest.mark.parametrize("slip", FETCHING)
def test_the_planners_fetching_container_is_held_too(
    production: Documents, pair: dict[str, dict[str, Any]], slip: str
) -> None:
    made = pair["newfound-planner"]
    FETCHING[slip](made["spec"]["predictor"]["initContainers"][0])
    assert refusals(production, made)
