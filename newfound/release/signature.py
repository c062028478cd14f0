"""Signatures of releases: an Ed25519 signature of the manifest, made and checked where a key is configured.

The manifest names every file's sha256, so its signature is the release's. New items beside a release are signed
likewise. `NEWFOUND_RELEASE_PRIVATE_KEY` is a PEM file with the key that signs what is published.
`NEWFOUND_RELEASE_PUBLIC_KEYS` is a PEM file with the keys of which one must have signed whatever is read; without it
nothing is checked. More than one key there lets a key be replaced. Either variable may hold the PEM itself, as a
cluster's secrets and settings do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from newfound.errors import ConfigError, ReleaseError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE: Final = "manifest.sig"
PRIVATE_KEY: Final = "NEWFOUND_RELEASE_PRIVATE_KEY"
PUBLIC_KEYS: Final = "NEWFOUND_RELEASE_PUBLIC_KEYS"
# What a signature is for stands in front of what is signed, so that nothing else that the key signs passes for it.
MANIFESTS: Final = b"newfound release manifest v1\n"
NEW_ITEMS: Final = b"newfound new items v1\n"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


def sign(content: bytes, purpose: bytes = MANIFESTS) -> bytes | None:
    """The signature's line, in hexadecimal; None where no key is configured.

    Args:
        content: what is signed.
        purpose: what for.

    Raises:
        ConfigError: the key cannot be read.
    """
    if not (told := os.environ.get(PRIVATE_KEY)):
        return None
    return _private_key(told).sign(purpose + content).hex().encode() + b"\n"


def check_signature(content: bytes, read: Callable[[], bytes | None], where: str, purpose: bytes = MANIFESTS) -> None:
    """Checks a signature, where keys are configured.

    Args:
        content: what was signed, as it is stored.
        read: reads the signature's line; None where there is none.
        where: the file that was signed, for errors.
        purpose: what for.

    Raises:
        ReleaseError: there is no signature, or none of the keys has made it.
        ConfigError: the keys cannot be read.
    """
    if not (told := os.environ.get(PUBLIC_KEYS)):
        return
    from cryptography.exceptions import InvalidSignature

    keys = _public_keys(told)
    if (signed := read()) is None:
        raise ReleaseError(f"{where}: not signed; expected a signature, since {PUBLIC_KEYS} is set")
    for key in keys:
        try:
            key.verify(bytes.fromhex(signed.decode("ascii").strip()), purpose + content)
            return
        except (InvalidSignature, ValueError):
            continue
    raise ReleaseError(f"{where}: none of the keys of {PUBLIC_KEYS} has signed it")


def _content(told: str) -> tuple[bytes, str]:
    """Bytes that a variable holds or names, and their name in errors; a key is never part of that.

    Raises:
        OSError: the file cannot be read.
    """
    if told.lstrip().startswith("-----BEGIN"):
        return told.encode(), "its text"
    return Path(told).read_bytes(), told


def _private_key(told: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content, name = _content(told)
    except OSError as error:
        raise ConfigError(f"{PRIVATE_KEY}: {told} cannot be read; expected a file of PEM") from error
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{PRIVATE_KEY}: {name} cannot be read; expected an Ed25519 key, PEM, unencrypted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{PRIVATE_KEY}: {name} holds another kind of key; expected Ed25519")
    return key


def _public_keys(told: str) -> list[Ed25519PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        content, name = _content(told)
    except OSError as error:
        raise ConfigError(f"{PUBLIC_KEYS}: {told} cannot be read; expected a file of PEM") from error
    try:
        keys = [load_pem_public_key(found) for found in _PEM.findall(content)]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{PUBLIC_KEYS}: {name} cannot be read; expected Ed25519 public keys, PEM") from error
    known = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not known or len(known) < len(keys):
        raise ConfigError(f"{PUBLIC_KEYS}: {name} holds other keys than Ed25519 ones, or none")
    return known
