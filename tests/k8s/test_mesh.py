"""The mesh admits every flow that the NetworkPolicies allow, by identity or without one, and nothing else."""

from __future__ import annotations

import copy

import pytest

from k8s.flows import allowed
from k8s.workloads import Workload, of_kind, workloads
from tests.k8s.conftest import Documents
from tests.k8s.mesh import NOBODY, UnknownField, admits, mutual_tls, rules_of

PREDICT, COMPLETE, EVENTS, METRICS = (
    ("POST", "/v1/models/newfound:predict"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/events"),
    ("GET", "/metrics"),
)
# What is asked of whom.
REQUESTS = {"explorer": PREDICT, "ranker": PREDICT, "planner": COMPLETE, "collector": EVENTS}
GATEWAY = "cluster.local/ns/newfound-gateway/sa/newfound-istio"
# Kubeflow Pipelines puts sidecar.istio.io/inject: "false" on every template (kubeflow/pipelines,
# backend/src/apiserver/template/v2_template.go), TrainJobs' pods bear the same label, and no namespace of
# kube-prometheus' is in the mesh (prometheus-operator/kube-prometheus, manifests/setup/namespace.yaml).
WITHOUT_SIDECAR = ("newfound-pipelines", "monitoring/prometheus")


def _inside(documents: Documents) -> dict[str, Workload]:
    return {one.component: one for one in workloads(documents)}


def _principal(source: str, inside: dict[str, Workload]) -> str | None:
    if source in WITHOUT_SIDECAR:
        return NOBODY
    if source == "newfound-gateway":
        return GATEWAY
    return f"cluster.local/ns/newfound/sa/{inside[source].pod['serviceAccountName']}"


def _request(source: str, target: str) -> tuple[str, str] | None:
    return METRICS if source == "monitoring/prometheus" else REQUESTS.get(target)


def test_every_flow_passes_with_the_identity_that_its_sender_has(production: Documents) -> None:
    inside = _inside(production)
    refused = [
        flow
        for flow in allowed(production)
        if flow.target in inside
        if not admits(
            production,
            inside[flow.target],
            flow.port,
            _principal(flow.source, inside),
            _request(flow.source, flow.target),
        )
    ]
    assert refused == []


def test_nobody_else_is_admitted_by_identity(production: Documents) -> None:
    """Between workloads that speak HTTP; to the stores the NetworkPolicies and their passwords say who."""
    inside = _inside(production)
    wanted = {(flow.source, flow.target) for flow in allowed(production)}
    for target, request in REQUESTS.items():
        (port,) = {port["containerPort"] for one in inside[target].containers for port in one.get("ports", ())}
        for source in (*inside, "newfound-gateway"):
            if (source, target) not in wanted:
                assert not admits(production, inside[target], port, _principal(source, inside), request)


def test_without_an_identity_metrics_are_all_that_http_gives(production: Documents) -> None:
    for workload in workloads(production):
        for port in (port["containerPort"] for one in workload.containers for port in one.get("ports", ())):
            if workload.component in ("redis", "postgres"):
                continue
            scraped = workload.component != "pages"  # which are reached by a forwarded port alone
            assert admits(production, workload, port, NOBODY, METRICS) == scraped, "Prometheus has none"
            for request in (*REQUESTS.values(), ("GET", "/releases"), ("POST", "/metrics")):
                assert not admits(production, workload, port, NOBODY, request)


def test_other_ports_take_mutual_tls_alone_and_no_workload_is_without_a_policy(production: Documents) -> None:
    for workload in workloads(production):
        assert mutual_tls(production, workload, 9999) == "STRICT"
        assert rules_of(production, workload) is not None
        assert not admits(production, workload, 9999, GATEWAY, METRICS)


def test_stores_that_ask_for_identities_refuse_the_steps_of_pipelines(production: Documents) -> None:
    """How it was: STRICT for all, and default-editor's identity, which no step has."""
    strict = [one for one in copy.deepcopy(production) if one["metadata"]["name"] != "without-identity"]
    inside = _inside(strict)
    for store, port in (("redis", 6379), ("postgres", 5432)):
        assert admits(production, inside[store], port, NOBODY)
        assert not admits(strict, inside[store], port, NOBODY)


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication"])
def test_a_field_that_is_not_known_is_an_error(production: Documents, kind: str) -> None:
    changed = copy.deepcopy(production)
    next(one for one in of_kind(changed, kind) if "selector" in one["spec"])["spec"]["provider"] = {}
    with pytest.raises(UnknownField, match="provider"):
        for workload in workloads(changed):
            admits(changed, workload, 8080)
