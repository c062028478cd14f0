"""A release as a canary, against a Kubernetes API on loopback and the very manifests that serve."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components import _canary
from components._canary import DeployError, canary_name, canary_of, deploy, weights_of
from components.deploy_release import deploy_release
from newfound.errors import GateError
from tests.components.kube_api import KubeApi
from tests.k8s.canary import NAMED
from tests.k8s.test_schemas import custom_problems, needs_schemas

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
RELEASE = "20260101T000000-0123456789ab"
PUBLISHED = {"release": RELEASE, "planner": NAMED}
PAIR, PLANNER = "newfound-canary-0123456789ab", "newfound-planner-canary-0123456789ab"
GATES = {"recall_over_chance": {"value": 4.0, "bound": 3.0, "passed": True}}
CANARY = {"namespace": "newfound", "weight": 10, "ready_seconds": 5}
SERVING, ROUTES = "serving.kserve.io", "gateway.networking.k8s.io"


def _document(file: str, kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((K8S / file).read_text(encoding="utf-8"))
    return next(one for one in documents if one["kind"] == kind)


@pytest.fixture
def stable() -> dict[str, dict[str, Any]]:
    """The pair that serves, as the repository's manifests have it."""
    files = ("base/serving/newfound.yaml", "base/serving/newfound-planner.yaml")
    return {one["metadata"]["name"]: one for one in (_document(file, "InferenceService") for file in files)}


@pytest.fixture
def cluster(kube: KubeApi, stable: dict[str, dict[str, Any]]) -> KubeApi:
    """The pair and the route are there; what is made becomes ready."""
    for one in stable.values():
        kube.put(SERVING, "newfound", "inferenceservices", one)
    kube.put(ROUTES, "newfound", "httproutes", _document("overlays/production/route.yaml", "HTTPRoute"))
    kube.on_change = _become_ready
    return kube


def _become_ready(made: dict[str, Any]) -> None:
    made["status"] = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}


def _services(kube: KubeApi) -> dict[str, dict[str, Any]]:
    return {name: one for (_, _, kind, name), one in kube.objects.items() if kind == "inferenceservices"}


def _backends(kube: KubeApi) -> list[dict[str, Any]]:
    route = kube.objects[ROUTES, "newfound", "httproutes", "newfound"]
    return list(route["spec"]["rules"][0]["backendRefs"])


def test_a_second_pair_serves_the_release_beside_the_first(cluster: KubeApi, stable: dict[str, dict[str, Any]]) -> None:
    before = json.dumps([_services(cluster)[name]["spec"] for name in stable], sort_keys=True)
    _, measures = deploy(PUBLISHED, GATES, CANARY, poll_s=0.01)
    services = _services(cluster)
    assert set(services) == {"newfound", "newfound-planner", PAIR, PLANNER}
    assert json.dumps([services[name]["spec"] for name in stable], sort_keys=True) == before
    explorer = services[PAIR]["spec"]["transformer"]["containers"][0]
    assert explorer["args"][-2:] == ["--release", RELEASE]
    assert explorer["args"][:-2] == stable["newfound"]["spec"]["transformer"]["containers"][0]["args"]
    urls = [one["value"] for one in explorer["env"] if one["name"] == "NEWFOUND_PLANNER_URL"]
    assert urls == [f"http://{PLANNER}-predictor"]
    assert services[PAIR]["spec"]["predictor"]["model"]["args"] == ["--release", RELEASE]
    planner = services[PLANNER]["spec"]["predictor"]
    for container in (planner["model"], *planner["initContainers"]):
        assert {"name": "NEWFOUND_PLANNER", "value": NAMED} in container["env"]
    weights = {one["name"]: one["weight"] for one in _backends(cluster)}
    assert weights == {"newfound-transformer": 90, f"{PAIR}-transformer": 10}
    assert (measures["release"], measures["weight"]) == (RELEASE, 10)
    # The route's other rules are as they were.
    rules = cluster.objects[ROUTES, "newfound", "httproutes", "newfound"]["spec"]["rules"]
    assert rules[1:] == _document("overlays/production/route.yaml", "HTTPRoute")["spec"]["rules"][1:]


def test_each_release_has_a_pair_of_its_own(cluster: KubeApi) -> None:
    """KServe copies `observedGeneration` from the Deployment (kserve/kserve, pkg/apis/serving/v1beta1/
    inference_service_status.go, PropagateRawStatus), so a changed object keeps the Ready of its old pods: no object is
    changed."""
    deploy(PUBLISHED, GATES, CANARY, poll_s=0.01)
    following = "20260202T000000-ba9876543210"
    deploy({**PUBLISHED, "release": following}, GATES, {**CANARY, "weight": 20}, poll_s=0.01)
    for release in (RELEASE, following):
        pair = _services(cluster)[canary_name("newfound", release)]
        assert pair["spec"]["transformer"]["containers"][0]["args"][-2:] == ["--release", release]
    assert [(one["name"], one["weight"]) for one in _backends(cluster)] == [
        ("newfound-transformer", 80),
        (f"{canary_name('newfound', following)}-transformer", 20),
    ]
    assert not [entry for entry in cluster.log if entry[0] in ("update", "delete")]


def test_a_pair_that_hangs_beside_an_old_ready_one_gets_no_traffic(cluster: KubeApi) -> None:
    """The controller's real way: Ready and the generation stay those of the pods that ran before."""
    deploy(PUBLISHED, GATES, CANARY, poll_s=0.01)
    before, ready = _backends(cluster), {}
    for name, one in _services(cluster).items():
        ready[name] = one.get("status", {})
    cluster.on_change = lambda made: made.update(status=ready.get(made["metadata"]["name"], {}))
    with pytest.raises(DeployError, match="not ready in time"):
        deploy(
            {**PUBLISHED, "release": "20260202T000000-ba9876543210"},
            GATES,
            {**CANARY, "ready_seconds": 0.05},
            poll_s=0.01,
        )
    assert _backends(cluster) == before


def test_a_release_without_a_planner_has_no_planner_of_its_own(cluster: KubeApi) -> None:
    """Ids alone, nothing to read: no pod waits for a model that nobody made."""
    applied, _ = deploy({**PUBLISHED, "planner": ""}, GATES, CANARY, poll_s=0.01)
    assert [one["metadata"]["name"] for one in applied] == [PAIR, "newfound"]
    assert PLANNER not in _services(cluster)


def test_an_attempt_that_is_repeated_goes_on_with_what_is_there(cluster: KubeApi) -> None:
    for _ in range(2):
        deploy(PUBLISHED, GATES, CANARY, poll_s=0.01)
    assert len(_services(cluster)) == 4


def test_the_manifests_role_is_enough(cluster: KubeApi) -> None:
    rules = _document("base/accounts.yaml", "Role")["rules"]

    def allowed(verb: str, kind: str, name: str) -> bool:
        return any(
            kind in rule["resources"] and verb in rule["verbs"] and name in rule.get("resourceNames", [name])
            for rule in rules
        )

    cluster.allowed = allowed
    for _ in range(2):
        deploy(PUBLISHED, GATES, CANARY, poll_s=0.01)
    assert not allowed("delete", "inferenceservices", "newfound")


@pytest.mark.parametrize("gates", [{}, {**GATES, "match_rate": {"value": 0.1, "bound": 0.9, "passed": False}}])
def test_without_its_gates_nothing_is_touched(cluster: KubeApi, gates: dict[str, Any]) -> None:
    with pytest.raises(GateError, match="match_rate|none was judged"):
        deploy(PUBLISHED, gates, CANARY)
    assert not cluster.log


def test_pods_that_do_not_serve_get_no_traffic(cluster: KubeApi) -> None:
    before = _backends(cluster)

    def fail(made: dict[str, Any]) -> None:
        told = {"type": "Ready", "status": "False", "reason": "ImagePullBackOff", "message": "no such image"}
        made["status"] = {"observedGeneration": 1, "conditions": [told]}

    cluster.on_change = fail
    with pytest.raises(DeployError, match=rf"{PLANNER}: not ready in time \(ImagePullBackOff: no such"):
        deploy(PUBLISHED, GATES, {**CANARY, "ready_seconds": 0.05}, poll_s=0.01)
    assert _backends(cluster) == before


def test_what_the_cluster_refuses_is_told(cluster: KubeApi) -> None:
    cluster.allowed = lambda verb, kind, name: verb == "get"
    with pytest.raises(DeployError, match="the cluster answered 403 Forbidden"):
        deploy(PUBLISHED, GATES, CANARY)


@needs_schemas
def test_the_canary_is_what_kserve_takes(stable: dict[str, dict[str, Any]]) -> None:
    for one in stable.values():
        made = canary_of(one, RELEASE, NAMED)
        assert custom_problems(made) == []
        made["spec"]["predictor"]["minReplica"] = 1
        assert custom_problems(made)


def test_a_service_of_somebody_elses_is_left_alone() -> None:
    theirs = {"metadata": {"name": "newfound"}, "spec": {"predictor": {"model": {}}}}
    with pytest.raises(DeployError, match="expected one of newfound's"):
        canary_of(theirs, RELEASE, NAMED)
    with pytest.raises(DeployError, match="does not lead to newfound-transformer"):
        weights_of({"metadata": {}, "spec": {"rules": [{"backendRefs": [{"name": "theirs"}]}]}}, RELEASE, 5)


def test_the_component_records_what_it_applied(
    cluster: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_canary.deploy, "__defaults__", (0.01,))

    def artifact(name: str) -> Any:
        return SimpleNamespace(path=str(tmp_path / name), name=name, metadata={}, log_metric=lambda *_: None)

    (tmp_path / "published").write_text(json.dumps(PUBLISHED))
    # A refresh's verdict holds the gates beside its measures.
    (tmp_path / "gates").write_text(json.dumps({"measures": {}, "gates": GATES}))
    deploy_release.python_func(
        published=artifact("published"),
        gates=artifact("gates"),
        settings=json.dumps({"config": {}}),
        canary=json.dumps(CANARY),
        deployed=artifact("deployed"),
        metrics=artifact("metrics"),
    )
    applied = json.loads((tmp_path / "deployed").read_text())
    assert [one["metadata"]["name"] for one in applied[:2]] == [PLANNER, PAIR]
    assert json.loads((tmp_path / "metrics").read_text())["weight"] == 10
