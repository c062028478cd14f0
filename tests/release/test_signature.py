"""Signatures: where keys are configured, nothing unsigned is read, and nothing that others have signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from newfound.errors import ConfigError, ReleaseError
from newfound.release import store as release
from newfound.release.signature import PRIVATE_KEY, PUBLIC_KEYS
from tests.release.test_store import _publish


def _keys(folder: Path, name: str) -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)


@pytest.mark.parametrize("remote", [False, True])
def test_a_signed_release_is_read_and_a_forged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    root = f"memory://signed-{tmp_path.name}" if remote else str(tmp_path / "releases")
    cache = tmp_path / "cache"
    private, public = _keys(tmp_path, "ours")
    monkeypatch.setenv(PRIVATE_KEY, private)
    signed = _publish(tmp_path / "run", root, "one").id
    monkeypatch.delenv(PRIVATE_KEY)
    unsigned = _publish(tmp_path / "run", root, "two").id
    monkeypatch.setenv(PRIVATE_KEY, _keys(tmp_path, "theirs")[0])
    theirs = _publish(tmp_path / "run", root, "three").id

    assert {made.id for made in release.list_releases(root)} == {signed, unsigned, theirs}
    monkeypatch.setenv(PUBLIC_KEYS, public)
    assert release.load(root, signed, cache).id == signed
    with pytest.raises(ReleaseError, match=f"{unsigned}/manifest.json: not signed"):
        release.load(root, unsigned, cache)
    with pytest.raises(ReleaseError, match="none of the keys"):
        release.load(root, theirs, cache)
    assert [made.id for made in release.list_releases(root)] == [signed]
    with pytest.raises(ReleaseError, match="none of the keys"):
        release.promote(root, theirs, cache)


def test_a_key_is_replaced_by_trusting_both_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, (old, old_public), (new, new_public) = str(tmp_path / "releases"), *(_keys(tmp_path, n) for n in ("a", "b"))
    both = tmp_path / "both.pub"
    both.write_text(Path(old_public).read_text() + Path(new_public).read_text())
    monkeypatch.setenv(PUBLIC_KEYS, str(both))
    for key in (old, new):
        monkeypatch.setenv(PRIVATE_KEY, key)
        assert release.load(root, _publish(tmp_path / "run", root, key).id).id


def test_keys_may_come_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a cluster's secret, where no file is; a key that cannot be read is in no error."""
    root, (private, public) = str(tmp_path / "releases"), _keys(tmp_path, "ours")
    monkeypatch.setenv(PRIVATE_KEY, Path(private).read_text())
    made = _publish(tmp_path / "run", root, "one").id
    monkeypatch.setenv(PUBLIC_KEYS, Path(public).read_text())
    assert release.load(root, made).id == made
    monkeypatch.setenv(PRIVATE_KEY, Path(private).read_text()[:60])
    with pytest.raises(ConfigError, match="its text cannot be read") as told:
        _publish(tmp_path / "run", root, "two")
    assert "BEGIN" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff", b"00", None])
def test_a_damaged_signature_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    root = tmp_path / "releases"
    private, public = _keys(tmp_path, "ours")
    monkeypatch.setenv(PRIVATE_KEY, private)
    made = _publish(tmp_path / "run", str(root)).id
    monkeypatch.setenv(PUBLIC_KEYS, public)
    signature = root / made / "manifest.sig"
    signature.unlink() if content is None else signature.write_bytes(content)
    with pytest.raises(ReleaseError, match="manifest.json: (not signed|none of the keys)"):
        release.load(str(root))


def test_keys_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path / "releases")
    _publish(tmp_path / "run", root)
    other = generate_private_key(SECP256R1())
    (tmp_path / "ec.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(public)
    (tmp_path / "none").write_text("nothing")
    for name in ("ec.key", "none", "absent"):
        monkeypatch.setenv(PRIVATE_KEY, str(tmp_path / name))
        with pytest.raises(ConfigError, match=name):
            _publish(tmp_path / "run", root, "two")
    for name in ("ec.pub", "none", "absent"):
        monkeypatch.setenv(PUBLIC_KEYS, str(tmp_path / name))
        with pytest.raises(ConfigError, match=name):
            release.load(root)
