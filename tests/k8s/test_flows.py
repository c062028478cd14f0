"""NetworkPolicies leave exactly the flows that somebody needs."""

from __future__ import annotations

import copy

from k8s.flows import ALWAYS, IDENTITIES, LOCAL, PRODUCTION, STORE, WHY, Flow, allowed, half_open, table, ungoverned
from k8s.kustomize import ROOT
from k8s.workloads import of_kind, workloads
from tests.k8s.conftest import Documents

OPERATIONS = ROOT / "docs" / "operations.md"


def pairs(documents: Documents) -> set[tuple[str, str]]:
    """But for identities, which whoever reaches the object store may ask for."""
    flows = [(flow.source, flow.target) for flow in allowed(documents)]
    assert {source for source, target in flows if target == IDENTITIES} == {
        source for source, target in flows if target == STORE
    }
    return {pair for pair in flows if pair[1] != IDENTITIES}


def test_what_is_allowed_is_what_the_design_needs(production: Documents) -> None:
    assert pairs(production) == WHY.keys() | ALWAYS.keys()


def test_a_canary_opens_nothing_new(production: Documents, rendered) -> None:
    assert allowed(rendered("production with a canary")) == allowed(production)


def test_the_local_overlay_adds_its_own(rendered) -> None:
    mesh = {pair for pair in ALWAYS if "istio" in pair[1]}
    assert pairs(rendered("local")) == (WHY.keys() | ALWAYS.keys() | LOCAL.keys()) - mesh - PRODUCTION


def test_no_end_was_forgotten_and_nobody_is_left_open(overlay: Documents) -> None:
    assert half_open(overlay) == []
    assert ungoverned(overlay) == []


def test_ports_are_the_receivers_own(overlay: Documents) -> None:
    listening: dict[str, set[int]] = {}
    for workload in workloads(overlay):
        for container in workload.containers:
            for port in container.get("ports", ()):
                listening.setdefault(workload.component, set()).add(port["containerPort"])
    wrong = [flow for flow in allowed(overlay) if flow.target in listening and {flow.port} != listening[flow.target]]
    assert wrong == []
    assert all(flow.target in listening for flow in allowed(overlay) if flow.source == "newfound-gateway")


def test_the_table_in_the_documentation_is_the_manifests(production: Documents) -> None:
    assert table(allowed(production)) in OPERATIONS.read_text(encoding="utf-8"), "`make manifests` writes it"


def test_a_port_that_moves_at_one_end_is_noticed(production: Documents) -> None:
    changed = copy.deepcopy(production)
    ranker = next(one for one in of_kind(changed, "NetworkPolicy") if one["metadata"]["name"] == "ranker")
    ranker["spec"]["ingress"][0]["ports"][0]["port"] = 8081
    assert Flow("explorer", "ranker", 8080) in half_open(changed)
    assert ("explorer", "ranker") not in pairs(changed)


def test_a_flow_that_nobody_needs_is_noticed(production: Documents) -> None:
    changed = copy.deepcopy(production)
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(changed, "NetworkPolicy")}
    policies["ranker"]["egress"] = [policies["explorer"]["egress"][1]]
    ranker = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "ranker"}}}
    policies["redis"]["ingress"].append({"from": [ranker], "ports": [{"protocol": "TCP", "port": 6379}]})
    assert pairs(changed) - WHY.keys() - ALWAYS.keys() == {("ranker", "redis")}


def test_a_workload_without_a_policy_is_noticed(production: Documents) -> None:
    for left_out, expected in (("default-deny", 0), ("planner", 1)):
        kept = [one for one in production if (one["kind"], one["metadata"]["name"]) != ("NetworkPolicy", left_out)]
        assert len(ungoverned(kept)) == (expected or len(workloads(production)))


def test_addresses_outside_are_named_once_and_none_is_everybody(overlay: Documents) -> None:
    """Pod Identity answers on a link-local address, NodeLocal DNSCache on another (kubernetes/kubernetes,
    cluster/addons/dns/nodelocaldns; aws/eks-pod-identity-agent)."""
    blocks = [
        (one["metadata"]["name"], peer["ipBlock"])
        for one in of_kind(overlay, "NetworkPolicy")
        for rule in one["spec"].get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    own = [(name, block["cidr"]) for name, block in blocks if name == "cluster-api"]
    assert own in ([], [("cluster-api", "203.0.113.10/32")]), "the API server's own address"
    outside = [(name, block["cidr"]) for name, block in blocks if name != "cluster-api"]
    assert sorted(name for name, _ in outside) == ["names", "object-store", "object-store"]
    assert {cidr for _, cidr in outside} == {"169.254.20.10/32", "169.254.170.23/32", "203.0.113.0/24"}
