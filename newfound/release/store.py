"""Releases: immutable folders of artifacts with a manifest, and one small pointer to the one that serves.

`<root>/<id>/...` holds the files, its `manifest.json` written last: a folder without one is no release.
`<root>/current` is a pointer that is swapped in one step (a rename on a file system, one put on an object store),
so that whoever is killed at whatever moment leaves either the old release or the new one. `root` is a folder or any
URL that fsspec knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fsspec
from pydantic import ValidationError

from newfound.config import Settings
from newfound.errors import ReleaseError
from newfound.files import is_local, new_file, new_folder

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
POINTER: Final = "current"
_CHUNK: Final = 1 << 20
_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")


class FileRecord(Settings):
    """What a file of the release must be."""

    sha256: str
    bytes: int


class Manifest(Settings):
    """A release's record. It holds no user ids.

    Attributes:
        id: time of creation and the digest of everything else in the manifest.
        created: UTC, ISO 8601.
        files: by path within the release, with `/` between folders.
        lineage: data fingerprint, configuration, package versions, seeds, parents.
        measures: flat measures of the evaluated fit.
        fits: which fit the measures and which fit the files belong to.
        gates: each gate's value and bound, and whether it held.
    """

    schema_version: int
    id: str
    created: str
    files: dict[str, FileRecord]
    lineage: dict[str, Any]
    measures: dict[str, float | int | str]
    fits: dict[str, str]
    gates: dict[str, dict[str, float | bool]]


@dataclass(frozen=True)
class Release:
    """A verified release on local disk."""

    id: str
    path: Path
    manifest: Manifest


def publish(
    parts: Mapping[str, Path],
    root: str,
    *,
    lineage: Mapping[str, Any],
    measures: Mapping[str, float | int | str],
    fits: Mapping[str, str],
    gates: Mapping[str, Mapping[str, float | bool]],
    promote: bool = True,
) -> Manifest:
    """Copies artifacts into a new release and, last of all, points `current` at it.

    Args:
        parts: files and folders by the name that they take in the release.
        root: folder or URL of all releases.
        lineage: where the release comes from; JSON values.
        measures: flat measures.
        fits: which fit the measures and the files belong to.
        gates: the gates; a failed one refuses the release.
        promote: whether `current` moves to the new release.

    Raises:
        ReleaseError: a gate failed, a part is missing, or clusters, table and ranker were not made together.
    """
    failed = [name for name, gate in gates.items() if not gate["passed"]]
    if failed:
        raise ReleaseError(f"{root}: not published, failed gates: {', '.join(sorted(failed))}")
    sources = dict(_walk(parts))
    _check_made_together({name: path for name, path in sources.items() if name.endswith(".json")})
    files = {name: _record(path) for name, path in sources.items()}
    created = datetime.now(UTC)
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": created.isoformat(),
        "files": {name: record.model_dump() for name, record in files.items()},
        "lineage": dict(lineage),
        "measures": dict(measures),
        "fits": dict(fits),
        "gates": {name: dict(gate) for name, gate in gates.items()},
    }
    body["id"] = _identity(body)
    manifest = Manifest.model_validate(body)
    fs, base = fsspec.core.url_to_fs(root)
    target = f"{base}/{manifest.id}"
    for name, path in sources.items():
        fs.makedirs(os.path.dirname(f"{target}/{name}"), exist_ok=True)
        fs.put_file(str(path), f"{target}/{name}")
    _put(fs, f"{target}/{MANIFEST}", manifest.model_dump_json(indent=2).encode())
    if promote:
        _point(fs, base, manifest.id)
    return manifest


def current(root: str) -> str | None:
    """The id that `current` points at, or None where nothing was published yet."""
    fs, base = fsspec.core.url_to_fs(root)
    path = f"{base}/{POINTER}"
    try:
        raw = fs.cat_file(path)
    except FileNotFoundError:
        return None
    try:
        release_id = json.loads(raw)["release"]
    except (ValueError, KeyError, TypeError):
        release_id = None
    if not isinstance(release_id, str) or not _ID.fullmatch(release_id):
        raise ReleaseError(f'{path}: not a pointer; expected {{"release": "<id>"}}')
    return release_id


def check_id(release_id: str) -> str:
    """The id as it came: it becomes the name of folders, so nothing may be done with what is none.

    Raises:
        ReleaseError: it is not the id of a release.
    """
    if not _ID.fullmatch(release_id):
        raise ReleaseError(f"{release_id!r}: not the id of a release; expected one like 20250131T093000-0123456789ab")
    return release_id


def read_manifest(root: str, release_id: str) -> Manifest:
    """The manifest of one release.

    Raises:
        ReleaseError: there is none, or it was changed.
    """
    fs, base = fsspec.core.url_to_fs(root)
    return _read_manifest(fs, base, release_id)


def list_releases(root: str) -> list[Manifest]:
    """Manifests of all releases, oldest first; folders without a whole manifest are no releases and are left out."""
    fs, base = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()  # an object store's client remembers what it listed, and would never see a new release
    if not fs.exists(base):
        return []
    found = []
    for folder in fs.ls(base, detail=False):
        name = str(folder).rstrip("/").rsplit("/", 1)[-1]
        if not _ID.fullmatch(name):
            continue
        try:
            found.append(_read_manifest(fs, base, name))
        except ReleaseError:
            continue
    return sorted(found, key=lambda manifest: (manifest.created, manifest.id))


def load(
    root: str, release_id: str | None = None, cache: Path | None = None, parts: Sequence[str] | None = None
) -> Release:
    """Brings a release to local disk, where it is not there already, and verifies every file.

    Args:
        root: folder or URL of all releases.
        release_id: None means the current one.
        cache: local folder for releases of a remote root; unused for a local root.
        parts: files and folders that are needed; no others come from a remote root, whose planner may be large.

    Raises:
        ReleaseError: there is no such release, or a file is missing, changed, or not named in the manifest.
    """
    release_id = release_id or current(root)
    if release_id is None:
        raise ReleaseError(f"{root}: no release was published yet")
    fs, base = fsspec.core.url_to_fs(root)
    manifest = _read_manifest(fs, base, release_id)
    if is_local(fs):
        folder = Path(base) / release_id
    else:
        if cache is None:
            raise ReleaseError(f"{root}: a remote release needs a local cache folder")
        folder = cache / release_id
        if parts is not None:
            needed = {name for name in manifest.files if any(f"{name}/".startswith(f"{part}/") for part in parts)}
            folder = cache / f"{release_id}-{hashlib.sha256('|'.join(sorted(needed)).encode()).hexdigest()[:8]}"
        else:
            needed = set(manifest.files)
        if not folder.exists():
            _download(fs, f"{base}/{release_id}", manifest, needed, folder)
        _verify_files(folder, manifest, needed)
        return Release(release_id, folder, manifest)
    _verify_files(folder, manifest, set(manifest.files))
    return Release(release_id, folder, manifest)


def fetch(root: str, release_id: str | None, folder: Path) -> Release:
    """Copies a release to `folder/<id>`, wherever it comes from, and verifies the copy: for engines that read files.

    Raises:
        ReleaseError: see `load`.
    """
    source = load(root, release_id, folder)
    if source.path == folder / source.id:
        return source
    with new_folder(folder / source.id, MANIFEST) as copy:
        shutil.copytree(source.path, copy, dirs_exist_ok=True)
        _verify_files(copy, source.manifest, set(source.manifest.files))
    return Release(source.id, folder / source.id, source.manifest)


def verify(root: str, release_id: str | None = None, cache: Path | None = None) -> Manifest:
    """Checks every digest of a release; see `load` for the errors."""
    return load(root, release_id, cache).manifest


def rollback(root: str, to: str | None = None, cache: Path | None = None) -> Manifest:
    """Points `current` at an earlier release, once that one is verified.

    Args:
        root: folder or URL of all releases.
        to: the release to go to; None means the newest one made before the current one.
        cache: see `load`.

    Raises:
        ReleaseError: there is nothing to go back to, or the release does not verify.
    """
    if to is None:
        now = current(root)
        made = [manifest.id for manifest in list_releases(root)]
        earlier = made[: made.index(now)] if now in made else made
        if not earlier:
            raise ReleaseError(f"{root}: no earlier release than {now} to go back to")
        to = earlier[-1]
    manifest = verify(root, to, cache)
    fs, base = fsspec.core.url_to_fs(root)
    _point(fs, base, to)
    return manifest


def _walk(parts: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    for name in sorted(parts):
        path = parts[name]
        if path.is_file():
            yield name, path
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            if not inside:
                raise ReleaseError(f"{path}: an empty folder; expected the files of {name!r}")
            for file in inside:
                yield f"{name}/{file.relative_to(path).as_posix()}", file
        else:
            raise ReleaseError(f"{path}: missing; expected the part {name!r} of the release")


def _record(path: Path) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(sha256=digest.hexdigest(), bytes=size)


def _identity(body: Mapping[str, Any]) -> str:
    content = {key: value for key, value in body.items() if key != "id"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{datetime.fromisoformat(body['created']):%Y%m%dT%H%M%S}-{digest[:12]}"


def _check_made_together(records: Mapping[str, Path]) -> None:
    """Table and ranker name the clusters that they were made for; all of them must be these."""
    if "clusters/clusters.json" not in records:
        return
    clusters = json.loads(records["clusters/clusters.json"].read_text())["digest"]
    for name in ("table/table.json", "ranker/ranker.json"):
        if name in records:
            made_for = json.loads(records[name].read_text())["clusters_digest"]
            if made_for != clusters:
                raise ReleaseError(f"{name}: made for clusters {made_for[:12]}, but the release has {clusters[:12]}")


def _put(fs: Any, path: str, content: bytes) -> None:
    """Writes one small file in one step."""
    if is_local(fs):
        with new_file(path) as file:
            file.write_bytes(content)
    else:
        fs.pipe_file(path, content)


def _point(fs: Any, base: str, release_id: str) -> None:
    _put(fs, f"{base}/{POINTER}", json.dumps({"release": release_id}).encode())


def _read_manifest(fs: Any, base: str, release_id: str) -> Manifest:
    path = f"{base}/{check_id(release_id)}/{MANIFEST}"
    try:
        raw = json.loads(fs.cat_file(path))
    except FileNotFoundError as error:
        raise ReleaseError(f"{path}: missing; there is no release {release_id}") from error
    except ValueError as error:
        raise ReleaseError(f"{path}: not JSON ({error})") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise ReleaseError(f"{path}: schema version {version!r}; this newfound reads {SCHEMA_VERSION}")
    try:
        manifest = Manifest.model_validate(raw)
        identity = _identity(raw)
    except (ValidationError, ValueError) as error:
        raise ReleaseError(f"{path}: not a manifest ({' '.join(str(error).split())[:200]})") from error
    if manifest.id != release_id or identity != release_id:
        raise ReleaseError(f"{path}: its content was changed after the release {release_id} was made")
    return manifest


def _verify_files(folder: Path, manifest: Manifest, needed: Set[str]) -> None:
    for name, expected in manifest.files.items():
        if name not in needed:
            continue
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ReleaseError(f"{path}: leads out of the release")
        if not path.is_file():
            raise ReleaseError(f"{path}: missing from the release")
        if path.stat().st_size != expected.bytes:
            raise ReleaseError(f"{path}: {path.stat().st_size} bytes; the manifest says {expected.bytes}")
        if _record(path).sha256 != expected.sha256:
            raise ReleaseError(f"{path}: its sha256 differs from the manifest's")
    named = {folder / name for name in manifest.files} | {folder / MANIFEST}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        if path not in named:
            raise ReleaseError(f"{path}: not named in the manifest")
    _check_made_together({name: folder / name for name in needed if name.endswith(".json")})


def _download(fs: Any, source: str, manifest: Manifest, needed: Set[str], folder: Path) -> None:
    """Copies into the cache, where a folder is always whole."""
    with new_folder(folder, MANIFEST) as copy:
        for name in [*sorted(needed), MANIFEST]:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                fs.get_file(f"{source}/{name}", str(copy / name))
            except FileNotFoundError as error:
                raise ReleaseError(f"{source}/{name}: missing from the release") from error
        _verify_files(copy, manifest, needed)
