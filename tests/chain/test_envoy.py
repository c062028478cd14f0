"""A real Envoy, told what the production overlay says, before servers that only tell who they are: who is let in, where
requests go, and that the rules' model in tests/k8s/mesh.py says of every caller what Envoy does.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from components._canary import canary_name
from k8s.kustomize import ROOT, documents
from k8s.workloads import of_kind, workloads
from serving.local.processes import free_port
from tests.chain.certificates import Authority, Issuer
from tests.chain.envoy import GATEWAY, Mesh, Place, configuration
from tests.chain.running import PREDICT, Front, envoy
from tests.k8s.canary import with_canary
from tests.k8s.conftest import Documents
from tests.k8s.mesh import UnknownField, admits

RELEASE = "20260101T000000-0123456789ab"
FIRST = "InferenceService/newfound transformer"
CANARY = f"InferenceService/{canary_name('newfound', RELEASE)} transformer"
COMPONENTS = ("explorer", "ranker", "planner", "collector", "exporter")
REQUESTS = (
    ("POST", PREDICT),
    ("POST", "/v1/completions"),
    ("POST", "/v1/events"),
    ("GET", "/metrics"),
    ("GET", "/releases"),
    ("GET", "/v2/models/newfound/ready"),
)


class _Named(BaseHTTPRequestHandler):
    """Tells whose process it is, and what it was asked with."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"owner": self.server.owner, "headers": list(self.headers)}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@contextmanager
def _front(production: Documents, folder: Path) -> Iterator[Front]:
    """Envoy before a process of each workload."""
    with ExitStack() as stack:
        places = {}
        for one in workloads(production):
            if one.component in COMPONENTS:
                server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Named))
                server.owner = one.owner  # type: ignore[attr-defined]
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
                stack.callback(server.shutdown)
                places[one.owner] = Place(one, server.server_port, free_port())
        yield stack.enter_context(envoy(production, places, folder))


@pytest.fixture(scope="module")
def production() -> Documents:
    return documents(ROOT / "k8s" / "overlays" / "production")


@pytest.fixture(scope="module")
def front(production: Documents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Production, a quarter of whose requests go to a canary."""
    with _front(with_canary(production, RELEASE, 25), tmp_path_factory.mktemp("envoy")) as made:
        yield made


def _served(front: Front, requests: int) -> Counter[str]:
    answers = [front.ask(front.token()) for _ in range(requests)]
    assert all(one.status_code == 200 for one in answers), answers[0].text
    return Counter(one.json()["owner"] for one in answers)


def test_weights_are_the_routes(front: Front, production: Documents, tmp_path: Path) -> None:
    """A quarter; and nothing, once weights are back and the canary still there."""
    served = _served(front, 120)
    assert set(served) == {FIRST, CANARY} and 10 <= served[CANARY] <= 60
    with _front(with_canary(production, RELEASE, 0), tmp_path) as back:
        assert _served(back, 40) == {FIRST: 40}


def test_who_has_no_token_or_anothers_is_refused(front: Front) -> None:
    """And the token of who is let in ends at the gateway."""
    assert front.ask(None).status_code == 403
    assert front.ask(front.issuer.token("https://elsewhere.example.com", "newfound")).status_code == 401
    assert front.ask(front.issuer.token(front.issued_by, "another")).status_code == 403
    assert front.ask(Issuer().token(front.issued_by, "newfound")).status_code == 401
    assert front.ask("nonsense").status_code == 401
    answer = front.ask(front.token())
    assert answer.status_code == 200 and "authorization" not in map(str.lower, answer.json()["headers"])


def test_other_ways_lead_nowhere(front: Front) -> None:
    assert front.ask(front.token(), "/v1/events").json()["owner"] == "Deployment/newfound-collector"
    assert front.ask(front.token(), "/metrics").status_code == 403
    assert front.ask(front.token(), "/v2/models/newfound/ready").status_code == 403
    assert front.ask(front.token(), host="elsewhere.example.com").status_code in (403, 404)


def test_envoy_admits_whom_the_model_admits(front: Front, production: Documents) -> None:
    """Every caller's every request to every workload; the same rules, by Envoy and by tests/k8s/mesh.py."""
    callers = {place.principal for place in front.places.values()} | {GATEWAY, None}
    admitted = 0
    for owner, place in front.places.items():
        for caller in callers:
            for method, path in REQUESTS:
                expected = admits(production, place.workload, place.port, caller, (method, path))
                status = front.call(owner, caller, method, path)
                assert status == (200 if expected else 403), (owner, caller, method, path)
                admitted += expected
    assert admitted >= 20
    with pytest.raises(httpx.HTTPError):  # mutual TLS without a certificate: no connection
        front.call(FIRST, "", "GET", "/metrics")


@pytest.mark.parametrize(
    ("kind", "place", "field"),
    [
        ("HTTPRoute", ("spec", "rules", 0), "filters"),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0), "filters"),
        ("Gateway", ("spec", "listeners", 0, "tls"), "options"),
        ("RequestAuthentication", ("spec", "jwtRules", 0), "fromCookies"),
        ("AuthorizationPolicy", ("spec",), "provider"),
        ("PeerAuthentication", ("spec",), "mtlsMode"),
    ],
)
def test_a_field_that_is_not_known_is_an_error(
    production: Documents, kind: str, place: tuple[Any, ...], field: str, tmp_path: Path
) -> None:
    changed = copy.deepcopy(production)
    for one in of_kind(changed, kind):  # each alone, whomever it selects
        part: Any = one
        for key in place:
            part = part[key]
        part[field] = []
        places = {one.owner: Place(one, 1, 2) for one in workloads(changed) if one.component == "explorer"}
        (rule,) = of_kind(changed, "RequestAuthentication")[0]["spec"]["jwtRules"]
        authority = Authority(tmp_path / one["metadata"]["name"])
        mesh = Mesh(changed, places, authority, {rule["jwksUri"]: "{}"})
        with pytest.raises(UnknownField, match=field):
            configuration(mesh, 3, {}, 4)
        del part[field]
