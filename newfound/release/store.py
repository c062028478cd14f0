"""Releases: immutable folders of artifacts with a manifest, and one small pointer to the one that serves.

`<root>/<id>/...` holds the files, its `manifest.json` written last: a folder without one is no release. Whoever is
killed at whatever moment leaves either the old release or the new one. `root` is a folder or any URL that fsspec knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from newfound.errors import ReleaseError
from newfound.files import new_folder
from newfound.release.manifest import (
    MANIFEST,
    PLANNER,
    Manifest,
    check_gates_held,
    check_id,
    check_made_together,
    files_of,
    is_id,
    make_manifest,
    read_manifest,
    record_of,
    verify_files,
)
from newfound.release.pointer import check_expected, current, move, read_pointer
from newfound.release.signature import SIGNATURE, sign
from newfound.release.storage import Storage
from newfound.release.takedown import start_takedown

__all__ = [
    "Manifest",
    "Release",
    "check_id",
    "current",
    "fetch",
    "fetch_planner",
    "list_releases",
    "load",
    "manifest_of",
    "promote",
    "publish",
    "rollback",
    "verify",
]

AS_IT_IS: Final = "as it is"
log: Final = logging.getLogger("newfound.release")


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
    flags: Mapping[str, str] | None = None,
    promote: bool = True,
    expect: str | None = AS_IT_IS,
) -> Manifest:
    """Copies artifacts into a new release and, last of all, points `current` at it.

    Args:
        parts: files and folders by the name that they take in the release.
        root: folder or URL of all releases.
        lineage: where the release comes from; JSON values.
        measures: flat measures.
        fits: which fit the measures and the files belong to.
        gates: the gates; none at all, or a failed one, refuses the release.
        flags: sentences by name, of what a person should know; they refuse nothing.
        promote: whether `current` moves to the new release. Held after a rollback, it stays where it is.
        expect: the release that `current` must still point at to be moved; None: at none. By default the one that it
            points at when this begins.

    Raises:
        ReleaseError: a gate failed, a part is missing, clusters, table and ranker were not made together, or `current`
            is not what was expected; what was copied by then stays, without serving.
    """
    check_gates_held(gates)
    sources = dict(files_of(parts))
    check_made_together({name: path for name, path in sources.items() if name.endswith(".json")})
    store = Storage(root)
    before = read_pointer(store)
    there = before.release if before else None
    if expect == AS_IT_IS:
        expect = there
    elif promote:
        check_expected(store, before, expect)
    if before is None:
        start_takedown(store)
    files = {name: record_of(path) for name, path in sources.items()}
    record = {"lineage": lineage, "measures": measures, "fits": fits, "gates": gates, "flags": flags or {}}
    manifest = make_manifest(datetime.now(UTC), files, **record)
    _write(store, manifest, sources)
    if promote and before is not None and before.held:
        log.warning("%s: published, but `current` is held at %s since a rollback", manifest.id, there)
    elif promote:
        move(store, manifest.id, expect)
    return manifest


def manifest_of(root: str, release_id: str) -> Manifest:
    """The manifest of one release.

    Raises:
        ReleaseError: there is none, or it was changed.
    """
    return read_manifest(Storage(root), release_id)


def list_releases(root: str) -> list[Manifest]:
    """Manifests of all releases, oldest first; folders without a whole manifest are no releases and are left out."""
    store = Storage(root)
    return sorted(_whole(store, store.folders()), key=lambda manifest: (manifest.created, manifest.id))


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
    store = Storage(root)
    manifest = read_manifest(store, release_id)
    needed = set(manifest.files)
    if store.is_local:
        folder = Path(store.name_of(release_id))
    else:
        if cache is None:
            raise ReleaseError(f"{root}: a remote release needs a local cache folder")
        folder = cache / release_id
        if parts is not None:
            needed = {name for name in needed if any(f"{name}/".startswith(f"{part}/") for part in parts)}
            folder = cache / f"{release_id}-{hashlib.sha256('|'.join(sorted(needed)).encode()).hexdigest()[:8]}"
        if not folder.exists():
            _download(store, manifest, needed, folder)
    verify_files(folder, manifest, needed)
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
        verify_files(copy, source.manifest, set(source.manifest.files))
    return Release(source.id, folder / source.id, source.manifest)


def fetch_planner(root: str, name: str, folder: Path) -> Release:
    """Copies a planner to `folder/<name>/planner` out of whichever release has it, and verifies the copy.

    Args:
        root: folder or URL of all releases.
        name: the planner's, see `Manifest.planner_name`.
        folder: a local one.

    Returns:
        The release that it was taken from, of which the planner's files are there.

    Raises:
        ReleaseError: no release has it, or a file is missing or changed.
    """
    store = Storage(root)
    newest_first = sorted(store.folders(), reverse=True)
    manifest = next((one for one in _whole(store, newest_first) if one.planner_name == name), None)
    if manifest is None:
        raise ReleaseError(f"{root}: no release has the planner {name}; `newfound release show` names a release's own")
    needed = {file for file in manifest.files if file.startswith(f"{PLANNER}/")}
    if not (folder / name).exists():
        _download(store, manifest, needed, folder / name)
    verify_files(folder / name, manifest, needed)
    return Release(manifest.id, folder / name, manifest)


def verify(root: str, release_id: str | None = None, cache: Path | None = None) -> Manifest:
    """Checks every digest of a release; see `load` for the errors."""
    return load(root, release_id, cache).manifest


def promote(root: str, release_id: str, cache: Path | None = None, *, even_if_held: bool = True) -> Manifest:
    """Points `current` at a release, once that one is verified, and lets later ones follow it.

    Args:
        root: folder or URL of all releases.
        release_id: an older or a newer one than serves.
        cache: see `load`.
        even_if_held: whether a rollback that holds `current` is undone, as a person may; no machine should.

    Raises:
        ReleaseError: the release does not verify, `current` is held, or somebody else moved it meanwhile.
    """
    store = Storage(root)
    before = read_pointer(store)
    if before is not None and before.held and not even_if_held:
        raise ReleaseError(f"{root}: held at {before.release} since a rollback; `newfound release promote` lifts it")
    manifest = verify(root, release_id, cache)
    move(store, release_id, before.release if before else None)
    return manifest


def rollback(root: str, to: str | None = None, cache: Path | None = None) -> Manifest:
    """Points `current` at an earlier release, once that one is verified, and holds it there.

    Args:
        root: folder or URL of all releases.
        to: the release to go to; None means the newest one made before the current one.
        cache: see `load`.

    Raises:
        ReleaseError: there is nothing to go back to, the release does not verify, or somebody else moved `current`
            meanwhile.
    """
    now = current(root)
    if to is None:
        made = [manifest.id for manifest in list_releases(root)]
        earlier = made[: made.index(now)] if now in made else made
        if not earlier:
            raise ReleaseError(f"{root}: no earlier release than {now} to go back to")
        to = earlier[-1]
    manifest = verify(root, to, cache)
    move(Storage(root), to, now, hold=True)
    return manifest


def _whole(store: Storage, names: Iterable[str]) -> Iterator[Manifest]:
    """The manifests among some folders, one after the other as they are asked for."""
    for name in filter(is_id, names):
        with contextlib.suppress(ReleaseError):
            yield read_manifest(store, name)


def _write(store: Storage, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    content = manifest.model_dump_json(indent=2).encode()
    records = {SIGNATURE: signature} if (signature := sign(content)) else {}
    records[MANIFEST] = content  # the last
    if store.is_local:
        with new_folder(store.name_of(manifest.id), MANIFEST) as folder:
            for name, path in sources.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
            for name, record in records.items():
                (folder / name).write_bytes(record)
            verify_files(folder, manifest, set(manifest.files))
        return
    for name, path in sources.items():
        store.upload(path, f"{manifest.id}/{name}")
    for name, record in records.items():
        store.write(f"{manifest.id}/{name}", record)


def _download(store: Storage, manifest: Manifest, needed: Set[str], folder: Path) -> None:
    """Copies into the cache, where a folder is always whole."""
    with new_folder(folder, MANIFEST) as copy:
        for name in [*sorted(needed), MANIFEST]:
            store.download(f"{manifest.id}/{name}", copy / name)
        verify_files(copy, manifest, needed)
