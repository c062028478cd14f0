"""How pods run: restricted, bounded, spread over disruptions, from images that do not change."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k8s.kustomize import RenderError, render
from k8s.workloads import Workload, of_kind, workloads
from tests.k8s.conftest import OVERLAYS, Documents, with_component

WRITABLE = ("emptyDir", "persistentVolumeClaim")


def test_namespaces_enforce_the_restricted_standard(overlay: Documents) -> None:
    for namespace in of_kind(overlay, "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_are_restricted(overlay: Documents) -> None:
    """The restricted pod security standard, and beyond it: a read-only root, no token, no id of root."""
    for workload in workloads(overlay):
        pod = workload.pod
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] >= 999, workload.owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, workload.owner
        assert pod["automountServiceAccountToken"] is False, workload.owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), workload.owner
        for container in workload.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "privileged": False,
                "capabilities": {"drop": ["ALL"]},
            }, workload.owner
            assert all("hostPort" not in port for port in container.get("ports", ()))
        for volume in pod.get("volumes", ()):
            assert set(volume) - {"name"} <= {*WRITABLE, "configMap", "projected"}, workload.owner
            for source in volume.get("projected", {}).get("sources", ()):
                token = source.get("serviceAccountToken")  # for one audience; the cluster's own where it has rights
                if token is None:
                    assert source["configMap"]["name"] == "kube-root-ca.crt"
                elif "audience" in token or workload.owner != "CronJob/newfound-watch":
                    assert token.get("audience") == "pipelines.kubeflow.org", workload.owner


def test_pods_are_bounded(overlay: Documents) -> None:
    """Requests for both, a limit of memory (of processors none, which would only throttle), sizes of scratch space."""
    for workload in workloads(overlay):
        for container in workload.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), workload.owner
            assert "memory" in resources["limits"], workload.owner
            # KServe gives a transformer without a limit the one of its ConfigMap: a single processor.
            assert ("cpu" in resources["limits"]) == (workload.component == "explorer"), workload.owner
            assert resources["limits"].get("cpu", "8") == "8", workload.owner
        for volume in workload.pod.get("volumes", ()):
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], (workload.owner, volume["name"])


def test_a_temporary_folder_is_writable(overlay: Documents) -> None:
    for workload in workloads(overlay):
        written = {one["name"] for one in workload.pod["volumes"] if set(WRITABLE) & one.keys()} | set(workload.claims)
        for container in workload.containers:
            mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
            assert mounts.get("/tmp") in written, workload.owner


def test_services_live_through_disruptions(production: Documents) -> None:
    """What has several pods has a budget that lets nodes be drained, and is asked to end before it is ended."""
    budgets = [one["spec"] for one in of_kind(production, "PodDisruptionBudget")]
    assert all(budget["maxUnavailable"] == 1 for budget in budgets)

    def budgeted(workload: Workload) -> bool:
        return any(one["selector"]["matchLabels"].items() <= workload.labels.items() for one in budgets)

    several = {one.component for one in workloads(production) if budgeted(one)}
    assert several == {"explorer", "ranker", "planner", "collector"}
    for workload in workloads(production):
        if workload.component in several:
            assert workload.pod["terminationGracePeriodSeconds"] >= 60
            assert workload.pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] > 0
    for part in ("transformer", "predictor"):
        (service,) = [one for one in of_kind(production, "InferenceService") if one["metadata"]["name"] == "newfound"]
        assert service["spec"][part]["minReplicas"] >= 2


def test_production_names_images_by_digest(rendered: Any) -> None:
    for name in OVERLAYS[1:]:
        images = {one["image"] for workload in workloads(rendered(name)) for one in workload.containers}
        assert images and all(re.fullmatch(r"[a-z0-9./-]+@sha256:[0-9a-f]{64}", image) for image in images)


def test_no_image_floats(overlay: Documents) -> None:
    images = {one["image"] for workload in workloads(overlay) for one in workload.containers}
    assert all("@sha256:" in image or re.search(r":[0-9][\w.-]*$", image) for image in images), images


def test_a_canary_is_pinned_and_shares_nothing_that_serves(rendered: Any, production: Documents) -> None:
    both = rendered("production with a canary")
    added = [one for one in workloads(both) if "-canary" in one.owner]
    assert {one.component for one in added} == {"explorer", "ranker", "planner"}
    for workload in added:
        container = workload.containers[-1]
        if workload.component != "planner":
            assert container["args"][container["args"].index("--release") + 1] == "$(NEWFOUND_RELEASE)"
        (config,) = [
            source["configMapRef"]["name"]
            for source in container["envFrom"]
            if source.get("configMapRef", {}).get("name", "").startswith(("newfound-release", "newfound-planner"))
        ]
        data = {one["metadata"]["name"]: one["data"] for one in of_kind(both, "ConfigMap")}[config]
        assert data == (
            {"NEWFOUND_PLANNER": "0" * 16}
            if workload.component == "planner"
            else {"NEWFOUND_RELEASE": "20260101T000000-000000000000"}
        )
    # The pair that serves is as it was: same objects, byte for byte, but for the route's weights.
    for document in production:
        if document["kind"] != "HTTPRoute":
            assert document in both
    (explorer,) = [one for one in added if one.component == "explorer"]
    urls = {one["name"]: one.get("value") for one in explorer.containers[0]["env"]}
    assert urls["NEWFOUND_PLANNER_URL"] == "http://newfound-planner-canary-predictor"
    assert "newfound-canary-predictor.newfound" in explorer.containers[0]["args"]
    (route,) = of_kind(both, "HTTPRoute")
    assert {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]} == {
        "newfound-transformer": 95,
        "newfound-canary-transformer": 5,
    }


def test_gpus_are_asked_for_where_they_are(production: Documents, rendered: Any) -> None:
    def gpus(documents: Documents) -> dict[str, str]:
        return {
            workload.owner: container["resources"]["limits"]["nvidia.com/gpu"]
            for workload in workloads(documents)
            for container in workload.containers
            if "nvidia.com/gpu" in container["resources"]["limits"]
        }

    assert gpus(production) == {"InferenceService/newfound-planner predictor": "1"}
    assert gpus(rendered("production with a canary")).keys() == {
        "InferenceService/newfound-planner predictor",
        "InferenceService/newfound-planner-canary predictor",
    }
    assert gpus(rendered("local")) == {}
    (planner,) = [one for one in workloads(production) if one.component == "planner"]
    assert planner.pod["tolerations"]
    # NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery/README.md: its labels are there where it is installed.
    assert "nvidia.com/gpu.present" not in str(production)


def test_keda_scales_what_it_is_told_to(production: Documents) -> None:
    for service in of_kind(production, "InferenceService"):
        assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
        for part in ("transformer", "predictor"):
            if part in service["spec"]:
                assert service["spec"][part]["autoScaling"]["metrics"] and "scaleMetric" not in service["spec"][part]


def test_only_what_deploys_has_rights(overlay: Documents) -> None:
    roles = {one["metadata"]["name"]: one for one in of_kind(overlay, "Role")}
    role, judge = roles.pop("newfound-deployer"), roles.pop("newfound-judge", None)
    if judge is not None:
        (rule,) = judge["rules"]
        assert (rule["resources"], rule["resourceNames"]) == (["httproutes"], ["newfound"])
        assert rule["verbs"] == ["get", "patch"]
    reading = [rule["verbs"] for one in roles.values() for rule in one["rules"]]  # Prometheus finds what it scrapes
    assert all(verbs == ["get", "list", "watch"] for verbs in reading)
    assert of_kind(overlay, "ClusterRole", "ClusterRoleBinding") == []
    rights = {
        (resource, verb): rule.get("resourceNames")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not any("*" in pair for pair in rights)
    changing = {pair: names for pair, names in rights.items() if pair[1] in ("update", "patch", "delete")}
    assert all(names for names in changing.values()), "nothing is changed but by name"
    assert all("newfound" not in names for pair, names in changing.items() if pair[0] == "inferenceservices")
    bound = {one["metadata"]["name"]: one["subjects"] for one in of_kind(overlay, "RoleBinding")}
    assert [subject["namespace"] for subject in bound.pop("newfound-deployer")] == ["newfound-pipelines"]
    assert [one["name"] for one in bound.pop("newfound-judge", [])] == ([] if judge is None else ["newfound-verdict"])
    assert all(subject["namespace"] == "monitoring" for subjects in bound.values() for subject in subjects)


def test_a_folder_that_does_not_build_is_refused(tmp_path: Any) -> None:
    with pytest.raises(RenderError, match="no-such-component"):
        render(with_component(tmp_path, "no-such-component"))
