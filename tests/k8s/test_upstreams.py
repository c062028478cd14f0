"""What upstreams' own installations ask of ours, or refuse: Prometheus of two kinds, the gateway's pods, Kubeflow."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.kustomize import documents
from k8s.workloads import of_kind, workloads
from tests.k8s.canary import NAMED
from tests.k8s.conftest import Documents, with_component

MONITORING = "monitoring.coreos.com"


def test_kube_prometheus_may_look_into_our_namespace(production: Documents) -> None:
    """Its ServiceAccount reads Services by Roles in listed namespaces alone, and its NetworkPolicy admits no pod of
    KEDA's (prometheus-operator/kube-prometheus, manifests/prometheus-roleSpecificNamespaces.yaml and
    manifests/prometheus-networkPolicy.yaml)."""
    (role,) = [one for one in of_kind(production, "Role") if one["metadata"]["name"] == "prometheus-k8s"]
    (binding,) = [one for one in of_kind(production, "RoleBinding") if one["metadata"]["name"] == "prometheus-k8s"]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    for resource in ("services", "endpoints", "pods", "endpointslices"):
        assert {(resource, verb) for verb in ("get", "list", "watch")} <= granted
    (subject,) = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == ("prometheus-k8s", "monitoring")
    (keda,) = [one for one in of_kind(production, "NetworkPolicy") if one["metadata"]["namespace"] == "monitoring"]
    assert keda["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 9090}]


def test_the_helm_charts_prometheus_takes_our_objects_up(tmp_path: Path) -> None:
    """It selects by the label `release` (prometheus-community/helm-charts, charts/kube-prometheus-stack/values.yaml,
    `serviceMonitorSelectorNilUsesHelmValues` and `ruleSelectorNilUsesHelmValues`)."""
    overlay = with_component(tmp_path, "kube-prometheus-stack")
    file = overlay / "kustomization.yaml"
    text = file.read_text()
    line = next(one for one in text.splitlines(keepends=True) if "components/kube-prometheus #" in one)
    file.write_text(text.replace(line, ""))
    rendered = documents(overlay)
    ours = [one for one in rendered if one["apiVersion"].startswith(MONITORING)]
    assert {one["kind"] for one in ours} == {"ServiceMonitor", "PrometheusRule"}
    assert all(one["metadata"]["labels"]["release"] == "kube-prometheus-stack" for one in ours)
    assert not [one for one in rendered if one["metadata"]["name"] == "prometheus-k8s"], "another ServiceAccount"


def test_the_gateways_pods_are_restricted(production: Documents) -> None:
    """Istio's template for gateways sets every part of `restricted` but seccomp (istio/istio,
    manifests/charts/istio-control/istio-discovery/files/kube-gateway.yaml); the ConfigMap that the Gateway names is
    merged into the Deployment."""
    (gateway,) = of_kind(production, "Gateway")
    reference = gateway["spec"]["infrastructure"]["parametersRef"]
    assert (reference["group"], reference["kind"]) == ("", "ConfigMap")
    (config,) = [
        one
        for one in of_kind(production, "ConfigMap")
        if one["metadata"]["name"] == reference["name"]
        and one["metadata"]["namespace"] == gateway["metadata"]["namespace"]
    ]
    pod = yaml.safe_load(config["data"]["deployment"])["spec"]["template"]["spec"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_kubeflows_api_admits_what_submits(production: Documents) -> None:
    """Its policy admits profiles, istio-system and its own namespace (kubeflow/manifests, common/networkpolicies/base/
    ml-pipeline.yaml, since 2026 common/kubeflow-namespace/base/kubeflow/ml-pipeline.yaml)."""
    (policy,) = [one for one in of_kind(production, "NetworkPolicy") if one["metadata"]["namespace"] == "kubeflow"]
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    (expression,) = peer["podSelector"]["matchExpressions"]
    submits: set[str] = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in of_kind(production, "CronJob")
        for template in [one["spec"]["jobTemplate"]["spec"]["template"]]
        if {"--submit", "--host"} & set(template["spec"]["containers"][0].get("args", ()))
    }
    assert set(expression["values"]) == submits
    assert rule["ports"] == [{"protocol": "TCP", "port": 8888}]


def test_a_new_planner_needs_no_gpu_more_than_there_are(production: Documents) -> None:
    """A Deployment's default surge of 25 % is one pod more (kubernetes/kubernetes, pkg/apis/apps/v1/defaults.go)."""
    (planner,) = [
        one for one in of_kind(production, "InferenceService") if one["metadata"]["name"] == "newfound-planner"
    ]
    strategy: dict[str, Any] = planner["spec"]["predictor"]["deploymentStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


@pytest.mark.parametrize("part", ["transformer", "predictor"])
def test_each_pair_scales_on_its_own_requests(production: Documents, part: str) -> None:
    """The label `service` tells a canary's requests from the others' (prometheus-operator/prometheus-operator,
    pkg/prometheus/promcfg.go gives it to what a ServiceMonitor finds)."""
    from components._canary import canary_of

    for one in of_kind(production, "InferenceService"):
        if part not in one["spec"]:
            continue
        made = canary_of(one, "20260101T000000-0123456789ab", NAMED)
        name = one["metadata"]["name"]
        for spec, service in ((one, f"{name}-{part}"), (made, f"{made['metadata']['name']}-{part}")):
            for metric in spec["spec"][part]["autoScaling"]["metrics"]:
                assert f'service="{service}"' in metric["external"]["metric"]["query"]


def test_kserves_webhook_adds_nothing_to_what_is_written(overlay: Documents) -> None:
    """It gives the first container of every transformer, and of every predictor that is no model, a processor and two
    GiB where they name none (kserve/kserve, pkg/apis/serving/v1beta1/inference_service_defaults.go,
    transformer_custom.go, predictor_custom.go; predictor_model.go adds none)."""
    added = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    for one in of_kind(overlay, "InferenceService"):
        spec = one["spec"]
        assert "explainer" not in spec and "containers" not in spec["predictor"]
        for container in spec.get("transformer", {}).get("containers", [])[:1]:
            for kind, defaults in added.items():
                assert defaults.keys() <= container["resources"][kind].keys(), one["metadata"]["name"]
        bare = copy.deepcopy(dict(one))
        bare["spec"]["predictor"] = {"containers": [{"name": "kserve-container", "image": "x"}]}
        (predictor,) = [made for made in workloads([bare]) if made.owner.endswith("predictor")]
        assert predictor.containers[0]["resources"] == added
