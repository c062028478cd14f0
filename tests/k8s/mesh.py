"""Istio's rules on who is admitted, as its API documents them, over the rendered policies.

istio/api security/v1beta1/peer_authentication.proto and authorization_policy.proto. A field that is not known here is
an error: nothing that a manifest says may be passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.workloads import Workload, namespace_of, of_kind
from tests.k8s.conftest import Documents

NOBODY = None  # who has no sidecar has no identity


class UnknownField(Exception):
    """A policy says something that this model does not know."""


@dataclass(frozen=True)
class Rule:
    """Whom and what an AuthorizationPolicy admits; None: anybody, or anything.

    Attributes:
        principals: SPIFFE identities without their scheme.
        request_principals: issuer and subject of a token.
        ports: of the workload.
        methods: of HTTP.
        paths: of HTTP.
    """

    principals: tuple[str, ...] | None = None
    request_principals: tuple[str, ...] | None = None
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None


def known(mapping: Mapping[str, Any], fields: Iterable[str], where: str) -> None:
    """Refuses fields that are not among these.

    Raises:
        UnknownField: there is another.
    """
    if unknown := set(mapping) - set(fields):
        raise UnknownField(f"{where}: {', '.join(sorted(unknown))}")


def mutual_tls(documents: Documents, workload: Workload, port: int) -> str:
    """STRICT, PERMISSIVE or DISABLE: the workload's own policy before the namespace's, its ports before the rest."""
    namespace_wide, own = "PERMISSIVE", None
    for policy in of_kind(documents, "PeerAuthentication"):
        spec, name = policy["spec"], f"PeerAuthentication {policy['metadata']['name']}"
        known(spec, ("selector", "mtls", "portLevelMtls"), name)
        if namespace_of(policy) != workload.namespace:
            continue
        if "selector" not in spec:
            namespace_wide = spec["mtls"]["mode"]
        elif _selects(spec, workload, name):
            assert own is None, f"{workload.owner}: two policies of its own, of which the older one counts"
            own = spec.get("portLevelMtls", {}).get(str(port), spec["mtls"])["mode"]
    return own or namespace_wide


def rules_of(documents: Documents, workload: Workload) -> list[Rule] | None:
    """What the workload's policies admit together; None where there is no policy, and so everything is admitted."""
    found = [
        policy
        for policy in of_kind(documents, "AuthorizationPolicy")
        if namespace_of(policy) == workload.namespace and "targetRefs" not in policy["spec"]
        if _selects(policy["spec"], workload, f"AuthorizationPolicy {policy['metadata']['name']}")
    ]
    return [rule for policy in found for rule in rules_in(policy)] if found else None


def rules_in(policy: Mapping[str, Any]) -> Iterator[Rule]:
    """The rules of one AuthorizationPolicy that allows."""
    name, spec = f"AuthorizationPolicy {policy['metadata']['name']}", policy["spec"]
    known(spec, ("selector", "targetRefs", "action", "rules"), name)
    assert spec.get("action", "ALLOW") == "ALLOW", f"{name}: only ALLOW is known here"
    for rule in spec.get("rules", ()):
        known(rule, ("from", "to"), name)
        for source in rule.get("from", ({"source": {}},)):
            known(source["source"], ("principals", "requestPrincipals"), name)
            for target in rule.get("to", ({"operation": {}},)):
                operation = target["operation"]
                known(operation, ("ports", "methods", "paths"), name)
                yield Rule(
                    _all(source["source"].get("principals")),
                    _all(source["source"].get("requestPrincipals")),
                    tuple(map(int, operation["ports"])) if "ports" in operation else None,
                    _all(operation.get("methods")),
                    _all(operation.get("paths")),
                )


def admits(
    documents: Documents,
    workload: Workload,
    port: int,
    principal: str | None = NOBODY,
    request: tuple[str, str] | None = None,
) -> bool:
    """Whether a connection passes.

    Args:
        documents: every object.
        workload: who is called.
        port: its own.
        principal: who calls, such as cluster.local/ns/a/sa/b; None without a sidecar.
        request: method and path; None for what is no HTTP, to which rules on HTTP never apply.
    """
    if principal is NOBODY and mutual_tls(documents, workload, port) == "STRICT":
        return False
    rules = rules_of(documents, workload)
    return rules is None or any(_applies(rule, port, principal, request) for rule in rules)


def _applies(rule: Rule, port: int, principal: str | None, request: tuple[str, str] | None) -> bool:
    if rule.request_principals is not None:
        return False  # tokens end at the gateway
    method, path = request or (None, None)
    return (
        (rule.ports is None or port in rule.ports)
        and _matches(rule.principals, principal)
        and _matches(rule.methods, method)
        and _matches(rule.paths, path)
    )


def _matches(patterns: Sequence[str] | None, value: str | None) -> bool:
    if patterns is None:
        return True
    if value is None:
        return False
    return any(
        value.startswith(one[:-1]) if one.endswith("*") else value.endswith(one[1:]) if one[0] == "*" else value == one
        for one in patterns
    )


def _selects(spec: Mapping[str, Any], workload: Workload, name: str) -> bool:
    selector = spec.get("selector", {})
    known(selector, ("matchLabels",), name)
    return bool(selector.get("matchLabels", {}).items() <= workload.labels.items())


def _all(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
