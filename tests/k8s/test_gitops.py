"""A controller that follows a repository, and a canary's weights beside it.

Flux applies on the server's side and takes fields over (fluxcd/kustomize-controller, docs/spec/v1/kustomizations.md);
Argo CD keeps what a trusted field manager has changed where it is told to (argoproj/argo-cd,
docs/user-guide/diffing.md, docs/user-guide/sync-options.md).
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components._canary import MANAGER, canary_of, weights_of
from k8s.kustomize import ROOT, documents
from k8s.workloads import of_kind
from tests.k8s.canary import NAMED
from tests.k8s.conftest import Documents, with_component

RELEASE = "20260101T000000-0123456789ab"
SSA = "kustomize.toolkit.fluxcd.io/ssa"


def _route(documents: Documents) -> dict[str, Any]:
    (route,) = of_kind(documents, "HTTPRoute")
    return copy.deepcopy(dict(route))


def _weighted(route: dict[str, Any]) -> dict[str, Any]:
    """The route in the cluster once the pipeline has moved its weights, and manages its rules."""
    live = copy.deepcopy(route)
    live["metadata"] |= {"resourceVersion": "1", "managers": {"rules": MANAGER}}
    live["spec"] |= weights_of(live, RELEASE, 10)["spec"]
    return live


def _flux(wanted: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    if wanted["metadata"].get("annotations", {}).get(SSA) == "IfNotPresent":
        return live
    return {**live, "spec": wanted["spec"]}


def _argo(wanted: dict[str, Any], live: dict[str, Any], application: dict[str, Any]) -> dict[str, Any]:
    kept = set()
    if "RespectIgnoreDifferences=true" in application["syncPolicy"]["syncOptions"]:
        for one in application["ignoreDifferences"]:
            if (one["group"], one["kind"], one["name"]) == ("gateway.networking.k8s.io", "HTTPRoute", "newfound"):
                managers = one["managedFieldsManagers"]
                kept |= {field for field, manager in live["metadata"]["managers"].items() if manager in managers}
    return {**live, "spec": {**wanted["spec"], **{field: live["spec"][field] for field in kept}}}


@pytest.fixture
def application() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "k8s/gitops/argocd.yaml").read_text())["spec"])


def test_without_the_mode_a_canarys_weights_are_taken_back(production: Documents, application: dict[str, Any]) -> None:
    live = _weighted(_route(production))
    assert _flux(_route(production), live)["spec"] == _route(production)["spec"]
    application["ignoreDifferences"] = []
    assert _argo(_route(production), live, application)["spec"] == _route(production)["spec"]


def test_flux_leaves_the_weights(production: Documents, tmp_path: Path) -> None:
    rendered = documents(with_component(tmp_path, "gitops"))
    wanted = _route(rendered)
    live = _weighted(wanted)
    assert _flux(wanted, live) == live
    others = [one for one in rendered if SSA in one["metadata"].get("annotations", {})]
    assert [one["kind"] for one in others] == ["HTTPRoute"], "everything else follows the repository"
    assert {**wanted, "metadata": 0} == {**_route(production), "metadata": 0}


def test_argo_leaves_the_weights_and_nothing_else(production: Documents, application: dict[str, Any]) -> None:
    wanted = _route(production)
    live = _weighted(wanted)
    wanted["spec"]["hostnames"] = ["other.example.com"]
    synced = _argo(wanted, live, application)
    assert synced["spec"]["rules"] == live["spec"]["rules"] and synced["spec"]["hostnames"] == ["other.example.com"]
    assert "ServerSideApply=true" in application["syncPolicy"]["syncOptions"]
    assert (ROOT / application["source"]["path"] / "kustomization.yaml").is_file()


@pytest.mark.parametrize(
    "tracked",
    [
        {"labels": {"app.kubernetes.io/instance": "newfound", "argocd.argoproj.io/instance": "newfound"}},
        {
            "annotations": {
                "argocd.argoproj.io/tracking-id": "newfound:serving.kserve.io/InferenceService:newfound/newfound"
            }
        },
        {"labels": {"kustomize.toolkit.fluxcd.io/name": "newfound"}, "annotations": {SSA: "Merge"}},
        {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
    ],
)
def test_a_canary_is_nobodys_to_prune(production: Documents, tracked: dict[str, dict[str, str]]) -> None:
    """Argo CD removes what bears its application's label and is in no repository (argoproj/argo-cd,
    docs/user-guide/resource_tracking.md): a copy of the pair that serves must not."""
    for one in of_kind(production, "InferenceService"):
        stable, plain = copy.deepcopy(dict(one)), canary_of(one, RELEASE, NAMED)
        for field, more in tracked.items():
            stable["metadata"][field] = {**stable["metadata"].get(field, {}), **more}
        assert canary_of(stable, RELEASE, NAMED) == plain
        assert plain["metadata"]["labels"]["app.kubernetes.io/part-of"] == "newfound"


def test_the_text_gives_the_weights_back(production: Documents) -> None:
    """The command for a cluster that follows a repository makes of the weighted route the one that is rendered."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (patch,) = re.findall(r"kubectl -n newfound patch httproute newfound .*?-p '(.*?)'", text, re.DOTALL)
    (change,) = json.loads(patch)
    assert (change["op"], change["path"]) == ("replace", "/spec/rules/0/backendRefs")
    live = _weighted(_route(production))
    live["spec"]["rules"][0]["backendRefs"] = change["value"]
    assert live["spec"] == _route(production)["spec"]
