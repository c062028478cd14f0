"""Two installations in one cluster: a second one in a namespace of its own, which shares nothing with the first."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import cel
import pytest
import yaml

from k8s.__main__ import rendered as render_in
from k8s.kustomize import ROOT
from k8s.naming import in_namespace
from k8s.workloads import of_kind, workloads
from tests.k8s.conftest import Documents
from tests.k8s.references import ELSEWHERE, problems


@pytest.fixture(scope="module")
def second(rendered: Any) -> Documents:
    return in_namespace(rendered("production"), "shop")


def _keys(documents: Documents) -> set[tuple[str, str, str]]:
    return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in documents}


def test_they_share_no_object(production: Documents, second: Documents) -> None:
    assert len(_keys(second)) == len(production) and not _keys(second) & _keys(production)
    assert {space for _, space, _ in _keys(second)} == {"", "shop", "shop-gateway", *ELSEWHERE}
    assert {one["metadata"]["name"] for one in of_kind(second, "Namespace")} == {"shop", "shop-gateway"}


def test_the_second_fits_together(second: Documents) -> None:
    assert problems(second) == []


def test_nothing_in_it_names_a_namespace_of_the_first(second: Documents) -> None:
    """Wherever a namespace can stand: labels, principals, accounts, hosts, queries, arguments, variables, settings."""
    text = yaml.safe_dump_all(second)
    text += json.dumps([list(one["data"].values()) for one in of_kind(second, "ConfigMap")])
    for pattern in (
        r"namespace: .?newfound",
        r"metadata\.name: newfound",
        r"/ns/newfound",
        r"serviceaccount:newfound",
        r"newfound-[a-z-]+\.newfound",
        r"namespace=.{0,3}newfound",
    ):
        assert re.findall(pattern, text) == [], pattern
    containers = [container for one in workloads(second) for container in one.containers]
    told = [argument for one in containers for argument in one.get("args", ())]
    assert [told[at + 1] for at, argument in enumerate(told) if argument == "--namespace"] == ["shop"]
    variables = [one for container in containers for one in container.get("env", ())]
    profiles = {one["value"] for one in variables if one["name"] == "NEWFOUND_KFP_NAMESPACE"}
    assert profiles == {"shop-pipelines"}


def test_its_policy_is_for_its_own_profile(second: Documents) -> None:
    (policy,) = of_kind(second, "ValidatingAdmissionPolicy")
    assert {one["spec"]["policyName"] for one in of_kind(second, "ValidatingAdmissionPolicyBinding")} == {
        policy["metadata"]["name"]
    }
    (condition,) = policy["spec"]["matchConditions"]
    for profile, asked in (("shop-pipelines", True), ("newfound-pipelines", False)):
        request = {"userInfo": {"username": f"system:serviceaccount:{profile}:default-editor"}}
        assert cel.evaluate(condition["expression"], {"request": request}) is asked


def test_there_and_back_is_the_same(production: Documents, second: Documents) -> None:
    """Everything that changed is the name, and none was forgotten half-way."""
    text = re.sub(r"\bshop\b", "newfound", yaml.safe_dump_all(second, sort_keys=True))
    assert list(yaml.load_all(text, yaml.CSafeLoader)) == copy.deepcopy(production)


def test_a_name_that_is_none_is_refused_and_the_default_is_kustomizes_own() -> None:
    with pytest.raises(ValueError, match="expected a namespace's name"):
        in_namespace([], "Shop_1")
    overlay = ROOT / "k8s" / "overlays" / "local"
    assert "namespace: newfound\n" in render_in(overlay, "newfound")
    assert "namespace: trial\n" in render_in(overlay, "trial")
