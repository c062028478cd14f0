"""Envoy's configuration out of the rendered manifests: gateway, sidecars, routes, weights, tokens, mutual TLS, rules.

What Istio's control plane makes of Gateway, HTTPRoute, RequestAuthentication, PeerAuthentication and
AuthorizationPolicy, as far as these manifests use them. A field that is not known here is an error: nothing is
passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from k8s.workloads import Service, Workload, namespace_of, of_kind, services
from tests.chain.certificates import Authority
from tests.k8s.conftest import Documents
from tests.k8s.mesh import Rule, UnknownField, known, mutual_tls, rules_in, rules_of

GATEWAY: Final = "cluster.local/ns/newfound-gateway/sa/newfound-istio"
_TYPES: Final = "type.googleapis.com/envoy"
_TLS: Final = f"{_TYPES}.extensions.transport_sockets.tls.v3"
_HTTP: Final = f"{_TYPES}.extensions.filters.http"
_JWT: Final = "envoy.filters.http.jwt_authn"


@dataclass(frozen=True)
class Place:
    """A workload on this machine: its process's port, and that of its sidecar before it."""

    workload: Workload
    process: int
    sidecar: int

    @property
    def principal(self) -> str:
        """Its identity."""
        return f"cluster.local/ns/{self.workload.namespace}/sa/{self.workload.pod['serviceAccountName']}"

    @property
    def port(self) -> int:
        """The container's own, which policies name."""
        (port,) = [port["containerPort"] for one in self.workload.containers for port in one.get("ports", ())]
        return int(port)


@dataclass(frozen=True)
class Mesh:
    """All that the configuration is made of.

    Attributes:
        documents: the rendered objects.
        places: by the workload's owner.
        authority: of the identities.
        jwks: keys of tokens by their issuer's `jwksUri`.
    """

    documents: Documents
    places: Mapping[str, Place]
    authority: Authority
    jwks: Mapping[str, str]

    def behind(self, name: str, port: int) -> Place | None:
        """The workload behind a service's port; None where it does not run here.

        Raises:
            UnknownField: there is no such service, or it has no such port.
        """
        service = next((one for one in services(self.documents) if one.name == name), None)
        if service is None or port not in [number for number, _, _ in service.ports]:
            raise UnknownField(f"{name}:{port}: no such service")
        return next((one for one in self.places.values() if _selects(service, one.workload)), None)


def configuration(mesh: Mesh, gateway: int, outbound: Mapping[tuple[str, str, int], int], admin: int) -> dict[str, Any]:
    """Envoy's bootstrap.

    Args:
        mesh: see there.
        gateway: the gateway's port here.
        outbound: ports on which a workload finds a service: by owner, service and the service's port.
        admin: Envoy's own.
    """
    for policy in of_kind(mesh.documents, "AuthorizationPolicy"):
        list(rules_in(policy))  # of workloads that do not run here too: nothing is passed over
    listeners, clusters = [_gateway(mesh, gateway)], []
    for rule in _route(mesh)["rules"]:
        for backend in rule["backendRefs"]:
            clusters.append(_upstream(mesh, GATEWAY, backend["name"], backend["port"]))
    for place in mesh.places.values():
        listeners.append(_inbound(mesh, place))
        clusters.append(_cluster(f"process {place.workload.owner}", place.process))
    for (owner, service, number), port in outbound.items():
        principal = mesh.places[owner].principal
        cluster = _upstream(mesh, principal, service, number)
        clusters.append(cluster)
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster["name"], "timeout": "0s"}}]
        listeners.append(_listener(f"{owner} to {service}", port, [{"filters": [_http([], "*", routes)]}]))
    unique = {cluster["name"]: cluster for cluster in clusters}
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": listeners, "clusters": list(unique.values())},
    }


# --- the gateway ----------------------------------------------------------------------------------------------------


def _gateway(mesh: Mesh, port: int) -> dict[str, Any]:
    (gateway,) = of_kind(mesh.documents, "Gateway")
    known(gateway["spec"], ("gatewayClassName", "infrastructure", "listeners"), "Gateway")
    (listener,) = gateway["spec"]["listeners"]
    known(listener, ("name", "hostname", "port", "protocol", "tls", "allowedRoutes"), "Gateway's listener")
    known(listener["tls"], ("mode", "certificateRefs"), "Gateway's listener")
    assert (listener["protocol"], listener["tls"]["mode"]) == ("HTTPS", "Terminate")
    route = _route(mesh)
    assert listener["hostname"] in route["hostnames"]
    assert [one["sectionName"] for one in route["parentRefs"]] == [listener["name"]]
    filters = [*_tokens(mesh, gateway), _rbac(_gateway_rules(mesh, gateway), {})]
    routes = [one for rule in route["rules"] for one in _routes(rule)]
    context = {"common_tls_context": {"tls_certificates": [_pair(mesh.authority, host=listener["hostname"])]}}
    socket = {"name": "tls", "typed_config": {"@type": f"{_TLS}.DownstreamTlsContext", **context}}
    hosts = [f"{host}{end}" for host in route["hostnames"] for end in ("", f":{port}")]
    return _listener("gateway", port, [{"transport_socket": socket, "filters": [_http(filters, hosts, routes)]}])


def _route(mesh: Mesh) -> dict[str, Any]:
    (route,) = of_kind(mesh.documents, "HTTPRoute")
    known(route["spec"], ("parentRefs", "hostnames", "rules"), "HTTPRoute")
    for rule in route["spec"]["rules"]:
        known(rule, ("matches", "backendRefs", "timeouts"), "HTTPRoute's rule")
        known(rule.get("timeouts", {}), ("request",), "HTTPRoute's timeouts")
        for match in rule["matches"]:
            known(match, ("method", "path"), "HTTPRoute's match")
            assert match["path"]["type"] == "Exact", match
        for backend in rule["backendRefs"]:
            known(backend, ("name", "port", "weight"), "HTTPRoute's backend")
    return dict(route["spec"])


def _routes(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    weighted = [{"name": f"{GATEWAY} to {one['name']}", "weight": one.get("weight", 1)} for one in rule["backendRefs"]]
    action = {"weighted_clusters": {"clusters": weighted}, "timeout": rule.get("timeouts", {}).get("request", "0s")}
    method = {"name": ":method", "string_match": {"exact": ""}}
    return [
        {
            "match": {
                "path": one["path"]["value"],
                "headers": [{**method, "string_match": {"exact": one["method"]}}],
            },
            "route": action,
        }
        for one in rule["matches"]
    ]


def _tokens(mesh: Mesh, gateway: Mapping[str, Any]) -> list[dict[str, Any]]:
    """RequestAuthentication: a token that is not valid is refused; none at all is the AuthorizationPolicy's affair."""
    (found,) = of_kind(mesh.documents, "RequestAuthentication")
    known(found["spec"], ("targetRefs", "jwtRules"), "RequestAuthentication")
    _targets(found, gateway)
    (rule,) = found["spec"]["jwtRules"]
    known(rule, ("issuer", "jwksUri", "audiences", "forwardOriginalToken"), "RequestAuthentication's rule")
    provider = {
        "issuer": rule["issuer"],
        "audiences": rule["audiences"],
        "forward": rule["forwardOriginalToken"],
        "local_jwks": {"inline_string": mesh.jwks[rule["jwksUri"]]},
        "payload_in_metadata": "payload",
    }
    either = {"requires_any": {"requirements": [{"provider_name": "clients"}, {"allow_missing": {}}]}}
    rules = [{"match": {"prefix": "/"}, "requires": either}]
    config = {"@type": f"{_HTTP}.jwt_authn.v3.JwtAuthentication", "providers": {"clients": provider}, "rules": rules}
    return [{"name": _JWT, "typed_config": config}]


def _gateway_rules(mesh: Mesh, gateway: Mapping[str, Any]) -> list[Rule]:
    found = [one for one in of_kind(mesh.documents, "AuthorizationPolicy") if "targetRefs" in one["spec"]]
    for policy in found:
        _targets(policy, gateway)
    return [rule for policy in found for rule in rules_in(policy)]


def _targets(policy: Mapping[str, Any], gateway: Mapping[str, Any]) -> None:
    (target,) = policy["spec"]["targetRefs"]
    known(target, ("group", "kind", "name"), policy["kind"])
    assert (namespace_of(policy), target["kind"], target["name"]) == (
        namespace_of(gateway),
        "Gateway",
        gateway["metadata"]["name"],
    )


# --- sidecars -------------------------------------------------------------------------------------------------------


def _inbound(mesh: Mesh, place: Place) -> dict[str, Any]:
    mode = mutual_tls(mesh.documents, place.workload, place.port)
    rules = rules_of(mesh.documents, place.workload)
    filters = [] if rules is None else [_rbac(rules, {place.port: place.sidecar})]
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": f"process {place.workload.owner}", "timeout": "0s"}}]
    http = [_http(filters, "*", routes)]
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [_pair(mesh.authority, place.principal)],
            "validation_context": {"trusted_ca": {"filename": str(mesh.authority.root)}},
        },
    }
    tls = {
        "filter_chain_match": {"transport_protocol": "tls"},
        "transport_socket": {"name": "tls", "typed_config": context},
        "filters": http,
    }
    plain = {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": http}
    chains = {"STRICT": [tls], "PERMISSIVE": [tls, plain]}[mode]
    inspector = f"{_TYPES}.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    made = _listener(place.workload.owner, place.sidecar, chains)
    return {**made, "listener_filters": [{"name": "tls_inspector", "typed_config": {"@type": inspector}}]}


def _upstream(mesh: Mesh, principal: str, service: str, port: int) -> dict[str, Any]:
    """The way of an identity to a service, by mutual TLS with whom the service belongs to."""
    name, place = f"{principal} to {service}", mesh.behind(service, port)
    if place is None:
        return {"name": name, "connect_timeout": "1s", "load_assignment": {"cluster_name": name}}
    expected = {"san_type": "URI", "matcher": {"exact": f"spiffe://{place.principal}"}}
    validation = {"trusted_ca": {"filename": str(mesh.authority.root)}, "match_typed_subject_alt_names": [expected]}
    context = {"tls_certificates": [_pair(mesh.authority, principal)], "validation_context": validation}
    typed = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": context}
    return {**_cluster(name, place.sidecar), "transport_socket": {"name": "tls", "typed_config": typed}}


def _rbac(rules: Sequence[Rule], ports: Mapping[int, int]) -> dict[str, Any]:
    policies = {
        str(at): {"permissions": [_permission(rule, ports)], "principals": [_principal(rule)]}
        for at, rule in enumerate(rules)
    }
    config = {"@type": f"{_HTTP}.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": policies}}
    return {"name": "rbac", "typed_config": config}


def _permission(rule: Rule, ports: Mapping[int, int]) -> dict[str, Any]:
    wanted = []
    if rule.ports is not None:
        wanted.append([{"destination_port": ports.get(port, port)} for port in rule.ports])
    if rule.methods is not None:
        wanted.append([{"header": {"name": ":method", "string_match": {"exact": one}}} for one in rule.methods])
    if rule.paths is not None:
        wanted.append([{"url_path": {"path": _text(one)}} for one in rule.paths])
    return {"and_rules": {"rules": [{"or_rules": {"rules": one}} for one in wanted]}} if wanted else {"any": True}


def _principal(rule: Rule) -> dict[str, Any]:
    if rule.principals is not None:
        named = [_text(f"spiffe://{one}") for one in rule.principals]
        return {"or_ids": {"ids": [{"authenticated": {"principal_name": one}} for one in named]}}
    if rule.request_principals is not None:
        return {"or_ids": {"ids": [_of_issuer(one) for one in rule.request_principals]}}
    return {"any": True}


def _of_issuer(principal: str) -> dict[str, Any]:
    """A token's issuer and subject, of which the subject may be anybody."""
    issuer, _, subject = principal.rpartition("/")
    if subject != "*" or "*" in issuer:
        raise UnknownField(f"requestPrincipals: {principal}; expected an issuer and /*")
    path = [{"key": "payload"}, {"key": "iss"}]
    matcher = {"filter": _JWT, "path": path, "value": {"string_match": {"exact": issuer}}}
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def _text(pattern: str) -> dict[str, str]:
    if "*" in pattern:
        raise UnknownField(f"{pattern}: patterns are not known here")
    return {"exact": pattern}


# --- Envoy's own ----------------------------------------------------------------------------------------------------


def _pair(authority: Authority, principal: str = "", host: str | None = None) -> dict[str, Any]:
    certificate, key = authority.issue(principal, host=host)
    return {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}


def _http(filters: list[dict[str, Any]], hosts: str | list[str], routes: list[dict[str, Any]]) -> dict[str, Any]:
    domains = [hosts] if isinstance(hosts, str) else hosts
    last = {"name": "router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}}
    config = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": domains, "routes": routes}]},
        "http_filters": [*filters, last],
    }
    return {"name": "http", "typed_config": config}


def _listener(name: str, port: int, chains: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "address": _address(port), "filter_chains": chains}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "connect_timeout": "2s", "type": "STATIC", "load_assignment": assignment}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _selects(service: Service, workload: Workload) -> bool:
    return service.namespace == workload.namespace and service.selector.items() <= workload.labels.items()


def write(file: Path, config: Mapping[str, Any]) -> Path:
    """Writes the bootstrap; returns where."""
    import json

    file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return file
