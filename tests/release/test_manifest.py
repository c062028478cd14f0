"""Manifests: whatever somebody writes into one, nothing is read or written outside the release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from newfound.errors import ReleaseError
from newfound.release import store as release
from newfound.release.manifest import MANIFEST, identity_of, parse_manifest
from tests.release.test_store import _publish


def _forge(root: str, made: str, change: dict[str, Any]) -> str:
    """Writes another manifest with a right id beside a release, as whoever may write to the bucket can."""
    fs, base = fsspec.core.url_to_fs(root)
    body = json.loads(fs.cat_file(f"{base}/{made}/{MANIFEST}")) | change
    body["id"] = identity_of(body)
    fs.pipe_file(f"{base}/{body['id']}/{MANIFEST}", json.dumps(body).encode())
    return str(body["id"])


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "planner/../../evil.txt",
        "/tmp/evil.txt",
        "..",
        ".",
        "",
        "a//b",
        "a/",
        "..\\evil.txt",
        "a\x00b",
        "manifest.json",
        "manifest.sig",
        "x" * 300,
        "/".join("x" * 600),
    ],
)
def test_a_name_that_leads_out_of_the_release_is_refused_before_anything_is_copied(tmp_path: Path, name: str) -> None:
    root = f"memory://names-{tmp_path.name}"
    made = _publish(tmp_path / "run", root).id
    forged = _forge(root, made, {"files": {name: {"sha256": "0" * 64, "bytes": 0}}})
    with pytest.raises(ReleaseError, match="not a manifest"):
        release.load(root, forged, tmp_path / "cache" / "deep")
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "evil.txt").exists() and not Path("/tmp/evil.txt").exists()


def test_a_release_of_before_flags_is_read_as_one_without(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    made = _publish(tmp_path / "run", root, flags={"experiment.found": "not shown"})
    assert release.manifest_of(root, made.id).flags == {"experiment.found": "not shown"}
    body = json.loads((tmp_path / "releases" / made.id / MANIFEST).read_text())
    del body["flags"]
    body["id"] = identity_of(body)
    assert parse_manifest(json.dumps(body).encode(), MANIFEST).flags == {}


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"a": {"sha256": "0" * 64, "bytes": 0}, "a/b": {"sha256": "0" * 64, "bytes": 0}}},
        {"files": {"a": {"sha256": "../../x", "bytes": 0}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": -1}}},
        {"created": "yesterday"},
        {"created": 7},
        {"files": []},
        {"more": 1},
        {"flags": ["not shown"]},
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    root = f"memory://changes-{tmp_path.name}"
    fs, base = fsspec.core.url_to_fs(root)
    made = _publish(tmp_path / "run", root).id
    body = json.loads(fs.cat_file(f"{base}/{made}/{MANIFEST}")) | change
    with pytest.raises(ReleaseError, match="not a manifest"):
        parse_manifest(json.dumps(body).encode(), "manifest.json")


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"\xff\xfe", b"", b"1e999", b"9" * 5000, b"{}", b"null"])
def test_bytes_that_are_no_manifest_are_refused(raw: bytes) -> None:
    with pytest.raises(ReleaseError, match=r"manifest\.json: "):
        parse_manifest(raw, "manifest.json")


def test_a_manifest_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    made = _publish(tmp_path / "run", str(root)).id
    with (root / made / MANIFEST).open("r+b") as file:
        file.truncate(40 << 30)  # a hole: it takes no space
    with pytest.raises(ReleaseError, match="larger than"):
        release.load(str(root), made)
