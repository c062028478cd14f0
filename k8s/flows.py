"""The flows between workloads that the NetworkPolicies allow, worked out from them, each with its purpose.

A flow within the namespace needs both ends: the sender's egress and the receiver's ingress. Whoever is outside has
policies of its own; of those flows only our end is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from k8s.workloads import COMPONENT, Document, Workload, is_selected, of_kind, workloads

NAMESPACE: Final = "newfound"
STORE: Final = "object store"
# Addresses that are no store's.
IDENTITIES: Final = "the cloud's identities"
API: Final = "the cluster's API"
ADDRESSES: Final = {
    "169.254.20.10/32": "NodeLocal DNS",
    "169.254.170.23/32": IDENTITIES,
    "203.0.113.10/32": API,
    "203.0.113.20/32": "postgres",  # components/external-postgres and external-redis
    "203.0.113.30/32": "redis",
}


class Flow(NamedTuple):
    """One who may open connections to another's port."""

    source: str
    target: str
    port: int
    protocol: str = "TCP"


# The request's path and the data's, as the README draws them. Names outside are namespace/pods.
WHY: Final[Mapping[tuple[str, str], str]] = {
    ("newfound-gateway", "explorer"): "a request",
    ("explorer", "redis"): "the user's history",
    ("explorer", "planner"): "what the table does not answer",
    ("explorer", "ranker"): "the best items of the chosen clusters",
    ("explorer", "collector"): "what was shown",
    ("newfound-gateway", "collector"): "what came of it",
    ("collector", "postgres"): "events, durably",
    ("collector", "redis"): "fresh histories and interests",
    ("report", "postgres"): "events in, measures out",
    ("retain", "postgres"): "events that are too old",
    ("decide", "postgres"): "measures in, decisions out",
    ("decide", "kubeflow/ml-pipeline"): "the pipeline that is due",
    ("resume", "kubeflow/ml-pipeline"): "runs that failed",
    ("exporter", "postgres"): "measures of the last windows",
    ("backup", "postgres"): "dumps",
    ("import", "postgres"): "what users did before",
    ("erase", "postgres"): "a person's events",
    ("erase", "redis"): "a person's rows",
    ("verdict", "postgres"): "what came of a canary's slates",
    ("verdict", "kubeflow/ml-pipeline"): "interests under the promoted clusters",
    ("verdict", API): "a canary's share of the requests",
    ("restore", "postgres"): "a dump, brought back",
    ("import", STORE): "the data set",
    ("erase", STORE): "a person's rows in files, receipts",
    ("verdict", STORE): "the pointer to what serves",
    ("newfound-pipelines", "redis"): "histories and interests, materialised",
    ("newfound-pipelines", "postgres"): "the studies of Optuna",
    ("explorer", STORE): "releases, Feast's registry",
    ("ranker", STORE): "releases",
    ("planner", STORE): "its release, once",
    ("collector", STORE): "Feast's registry, the release's clusters",
    ("report", STORE): "the releases' tables and clusters",
    ("decide", STORE): "what everybody did, for the pipeline",
    ("exporter", STORE): "which release is current",
    ("monitoring/prometheus", "explorer"): "metrics",
    ("monitoring/prometheus", "ranker"): "metrics",
    ("monitoring/prometheus", "planner"): "metrics",
    ("monitoring/prometheus", "collector"): "metrics",
    ("monitoring/prometheus", "exporter"): "metrics",
}
# What every pod may do besides.
EVERYBODY: Final = "every pod"
ALWAYS: Final = {
    (EVERYBODY, "kube-system/kube-dns"): "names",
    (EVERYBODY, "NodeLocal DNS"): "names, where nodes answer",
    (EVERYBODY, "istio-system/istiod"): "certificates, in the mesh",
}
# Flows that the overlay `local` has not, with Kubeflow or a gateway, and those that it has besides.
PRODUCTION: Final = {pair for pair in WHY if pair[0] == "resume" or pair[1] == API}
LOCAL: Final = {("features", "redis"): "histories and interests, materialised"}


def allowed(documents: Sequence[Document]) -> list[Flow]:
    """Every flow that the policies leave, sorted."""
    out, into = _ends(documents)
    inside = {workload.component for workload in workloads(documents)}
    return sorted(
        flow
        for flow in out | into
        if (flow in out or flow.source not in inside) and (flow in into or flow.target not in inside)
    )


def half_open(documents: Sequence[Document]) -> list[Flow]:
    """Flows within the namespace of which one end alone is open: somebody was forgotten."""
    out, into = _ends(documents)
    inside = {workload.component for workload in workloads(documents)}
    within = {flow for flow in out ^ into if flow.source in inside and flow.target in inside}
    return sorted(within)


def ungoverned(documents: Sequence[Document]) -> list[str]:
    """Workloads that are not denied everything by default, or that have no policy of their own in either direction."""
    found = []
    for workload in workloads(documents):
        policies = [one for one in of_kind(documents, "NetworkPolicy") if _selects(one, workload)]
        closed = any(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} and _is_empty(one) for one in policies)
        own = any(one["spec"]["podSelector"].get("matchLabels", {}).get(COMPONENT) for one in policies)
        if not (closed and own):
            found.append(workload.owner)
    return found


def why(flow: Flow) -> str | None:
    """Purpose of a flow; None for one that nobody wants."""
    pair = flow.source, flow.target
    if flow.target == IDENTITIES:
        return "credentials for the object store" if (flow.source, STORE) in WHY else None
    return WHY.get(pair) or ALWAYS.get(pair) or LOCAL.get(pair)


def table(flows: Sequence[Flow]) -> str:
    """The flows as a Markdown table."""
    rows = [f"| {one.source} | {one.target} | {one.port} | {why(one) or '**nobody knows why**'} |" for one in flows]
    return "\n".join(["| from | to | port | for |", "| --- | --- | --- | --- |", *dict.fromkeys(rows)])


def _ends(documents: Sequence[Document]) -> tuple[set[Flow], set[Flow]]:
    """Flows as the senders' policies have them, and as the receivers' have them."""
    running = workloads(documents)
    out, into = set(), set()
    for policy in of_kind(documents, "NetworkPolicy"):
        everybody = policy["spec"]["podSelector"] == {}
        mine = [EVERYBODY] if everybody else [one.component for one in running if _selects(policy, one)]
        for name in mine:
            for rule in policy["spec"].get("egress", ()):
                out |= {Flow(name, peer, *port) for peer in _peers(rule["to"], running) for port in _ports(rule)}
            for rule in policy["spec"].get("ingress", ()):
                into |= {Flow(peer, name, *port) for peer in _peers(rule["from"], running) for port in _ports(rule)}
    return out, into


def _ports(rule: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for port in rule["ports"]:
        yield port["port"], port["protocol"]


def _peers(peers: Sequence[Mapping[str, Any]], running: Sequence[Workload]) -> Iterator[str]:
    for peer in peers:
        pods = peer.get("podSelector", {}).get("matchLabels", {})
        if "ipBlock" in peer:
            yield ADDRESSES.get(peer["ipBlock"]["cidr"], STORE)
        elif "namespaceSelector" in peer:
            (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
            yield "/".join([namespace, *pods.values()])
        else:
            yield from {one.component for one in running if pods.items() <= one.labels.items()} or {f"nobody: {pods}"}


def _selects(policy: Document, workload: Workload) -> bool:
    selector = policy["spec"]["podSelector"]
    return policy["metadata"]["namespace"] == workload.namespace and is_selected(selector, workload.labels)


def _is_empty(policy: Document) -> bool:
    return (
        policy["spec"]["podSelector"] == {} and not policy["spec"].get("egress") and not policy["spec"].get("ingress")
    )
