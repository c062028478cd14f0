"""Certificates of a mesh: one authority, one SPIFFE identity for each account, and a key that signs tokens."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm

ROOT = "cluster.local"


class Authority:
    """Issues certificates for an hour.

    Attributes:
        folder: where they lie.
        root: the authority's own certificate.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(parents=True)
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        made = (
            _certificate(self._key.public_key(), ROOT)
            .add_extension(constraint, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.root = folder / "root.pem"
        self.root.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, host: str | None = None) -> tuple[Path, Path]:
        """Certificate and key of a principal such as cluster.local/ns/a/sa/b, or of a host."""
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.DNSName(host) if host else x509.UniformResourceIdentifier(f"spiffe://{name}")
        alternative = x509.SubjectAlternativeName([who])
        made = (
            _certificate(key.public_key(), (host or name).rpartition("/")[2])
            .add_extension(alternative, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = (host or name).replace("/", "_")  # with dots of its own: an ending is added, and replaces nothing
        paths = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, plain[1], plain[0]))
        return paths


class Issuer:
    """Signs clients' tokens."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> str:
        """What its `jwksUri` answers."""
        public: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        return json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]})

    def token(self, issuer: str, audience: str) -> str:
        """A token for five minutes."""
        until = datetime.now(UTC) + timedelta(minutes=5)
        claims = {"iss": issuer, "sub": "a client", "aud": audience, "exp": until}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "one"})


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(public: Any, subject: str) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(ROOT))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )
