"""The production overlay behind a real Envoy, and those who come to it: clients with tokens, pods with identities."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from k8s.workloads import of_kind
from serving.local.processes import Service, free_port
from tests.chain.certificates import Authority, Issuer
from tests.chain.envoy import Mesh, Place, configuration, write
from tests.k8s.conftest import Documents

HOST: Final = "newfound.example.com"
PREDICT: Final = "/v1/models/newfound:predict"
BODY: Final = {"instances": [{"history": [{"item": "i5.0"}, {"item": "i5.1"}], "k": 6, "novel": 2}]}


@dataclass
class Front:
    """A running Envoy: the gateway, and one sidecar before each workload.

    Attributes:
        gateway: its port.
        places: workloads by their owner.
        issuer: of clients' tokens; `issued_by` is its name in the manifests.
    """

    gateway: int
    places: Mapping[str, Place]
    authority: Authority
    issuer: Issuer
    issued_by: str
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def token(self) -> str:
        """One that is let in."""
        return self.issuer.token(self.issued_by, "newfound")

    def ask(self, token: str | None, path: str = PREDICT, host: str = HOST) -> httpx.Response:
        """A client's request at the gateway."""
        headers = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
        with httpx.Client(verify=self._context(None), timeout=20, trust_env=False) as client:
            url, more = f"https://127.0.0.1:{self.gateway}{path}", {"sni_hostname": HOST}
            return client.post(url, json=BODY, headers=headers, extensions=more)

    def call(self, owner: str, principal: str | None, method: str, path: str) -> int:
        """The status with which a sidecar answers who comes straight to it.

        Args:
            owner: whose sidecar.
            principal: an identity; empty for TLS without a certificate; None for plain HTTP.
            method: of HTTP.
            path: what is asked for.

        Raises:
            httpx.HTTPError: there was no connection.
        """
        url = f"{'http' if principal is None else 'https'}://127.0.0.1:{self.places[owner].sidecar}{path}"
        verify = False if principal is None else self._context(principal)
        with httpx.Client(verify=verify, timeout=20, trust_env=False) as client:
            return client.request(method, url, json=BODY if method == "POST" else None).status_code

    def _context(self, principal: str | None) -> ssl.SSLContext:
        """What trusts the authority: as a client that asks for a host, or as a pod, whose peers have no host's name."""
        name = "a client" if principal is None else principal
        if name not in self._contexts:
            made = ssl.create_default_context(cafile=str(self.authority.root))
            if principal is not None:
                made.check_hostname = False
            if principal:
                made.load_cert_chain(*map(str, self.authority.issue(principal)))
            self._contexts[name] = made
        return self._contexts[name]


@contextmanager
def envoy(
    production: Documents,
    places: Mapping[str, Place],
    folder: Path,
    outbound: Mapping[tuple[str, str, int], int] | None = None,
) -> Iterator[Front]:
    """Runs Envoy as the manifests have it; it is ready at once, whether those behind it are or not.

    Args:
        production: the rendered objects.
        places: who runs here, by owner.
        folder: for the configuration, the certificates and the log.
        outbound: see `configuration`.
    """
    authority, issuer = Authority(folder / "certificates"), Issuer()
    (rule,) = of_kind(production, "RequestAuthentication")[0]["spec"]["jwtRules"]
    mesh = Mesh(production, places, authority, {rule["jwksUri"]: issuer.jwks()})
    gateway, admin = free_port(), free_port()
    config = write(folder / "envoy.json", configuration(mesh, gateway, outbound or {}, admin))
    binary = str(Path(sys.executable).with_name("envoy"))
    command = [binary, "-c", str(config), "--concurrency", "1", "--base-id", str(admin)]
    service = Service("envoy", command, folder, f"http://127.0.0.1:{admin}/ready")
    try:
        service.start().wait()
        yield Front(gateway, places, authority, issuer, rule["issuer"])
    finally:
        service.stop()
