"""A release's manifest: what every file must be, where the release comes from, and which gates it passed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Set
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from newfound.errors import ReleaseError
from newfound.release.signature import SIGNATURE, check_signature
from newfound.release.storage import Storage
from newfound.settings import Settings

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
PLANNER: Final = "planner"
LARGEST: Final = 32 << 20  # bytes of a manifest
_CHUNK: Final = 1 << 20
_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")
_PART = re.compile(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,255}")


def check_name(name: str) -> str:
    """The name of a file within a release, as it came: it becomes a path on the machine that downloads it.

    Raises:
        ValueError: it leads out of the release, or is no plain relative path.
    """
    parts = name.split("/")
    if len(name) > 1024 or not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError(f"{name[:80]!r} is no name of a file in a release; expected a relative path without `..`")
    if name in (MANIFEST, SIGNATURE):
        raise ValueError(f"{name!r} is the release's own record; expected a part's file")
    return name


class FileRecord(Settings):
    """Digest and size of a release's file."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


def _check_files(files: dict[str, FileRecord]) -> dict[str, FileRecord]:
    for name in files:
        folders = name.split("/")[:-1]
        if any("/".join(folders[: depth + 1]) in files for depth in range(len(folders))):
            raise ValueError(f"{name[:80]!r} lies in a folder that is a file as well")
    return files


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
        flags: sentences by name, of what a person should know and what refused nothing; older releases have none.
    """

    schema_version: int
    id: str
    created: str
    files: Annotated[
        dict[Annotated[str, AfterValidator(check_name)], FileRecord],
        Field(max_length=100_000),
        AfterValidator(_check_files),
    ]
    lineage: dict[str, Any]
    measures: dict[str, float | int | str]
    fits: dict[str, str]
    gates: dict[str, dict[str, float | bool]]
    flags: dict[str, str] = {}

    @property
    def planner_name(self) -> str | None:
        """The name under which engines serve the planner, the same in every release that has it; None without one.

        The first 16 hex digits of the sha256 of what `sha256sum` prints of the planner's files, in the order of names.
        """
        inside = f"{PLANNER}/"
        files = {name.removeprefix(inside): one for name, one in self.files.items() if name.startswith(inside)}
        lines = [f"{files[name].sha256}  {name}\n" for name in sorted(files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16] if lines else None


def make_manifest(created: datetime, files: Mapping[str, FileRecord], **record: Mapping[str, Any]) -> Manifest:
    """A manifest with its id.

    Args:
        created: now, in UTC.
        files: records by name.
        record: `lineage`, `measures`, `fits`, `gates` and `flags`.

    Raises:
        ReleaseError: a number is not finite, or a name or a value cannot stand in a manifest.
    """
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": created.isoformat(),
        "files": {name: one.model_dump() for name, one in files.items()},
        **{name: dict(value) for name, value in record.items()},
    }
    try:
        body = json.loads(json.dumps(body, allow_nan=False))
        return Manifest.model_validate({**body, "id": identity_of(body)})
    except (ValidationError, ValueError, TypeError) as error:
        raise ReleaseError(f"{MANIFEST}: cannot be written ({_brief(error)})") from error


def check_gates_held(gates: Mapping[str, Mapping[str, float | bool]]) -> None:
    """Nothing is published that was not judged, or that failed.

    Raises:
        ReleaseError: there are no gates, or one did not hold by its own value and bound.
    """
    if not gates:
        raise ReleaseError("not published: no gates; expected the verdict of at least one")
    failed = []
    for name, gate in gates.items():
        value, bound = (gate.get(key) for key in ("value", "bound"))
        held = isinstance(value, int | float) and isinstance(bound, int | float) and value >= bound
        if gate.get("passed") is not True or not held or not math.isfinite(value or 0.0):
            failed.append(name)
    if failed:
        raise ReleaseError(f"not published, failed gates: {', '.join(sorted(failed))}")


def check_id(release_id: str) -> str:
    """The id as it came: it becomes the name of folders, so nothing may be done with what is none.

    Raises:
        ReleaseError: it is not the id of a release.
    """
    if not _ID.fullmatch(release_id):
        raise ReleaseError(f"{release_id!r}: not the id of a release; expected one like 20250131T093000-0123456789ab")
    return release_id


def is_id(name: str) -> bool:
    """Whether a folder's name is the id of a release."""
    return _ID.fullmatch(name) is not None


def read_manifest(store: Storage, release_id: str) -> Manifest:
    """The manifest of one release, its signature checked where a key is configured.

    Raises:
        ReleaseError: there is none, it was changed, or its signature does not hold.
    """
    name = f"{check_id(release_id)}/{MANIFEST}"
    where = store.name_of(name)
    raw = store.read(name, LARGEST)
    if raw is None:
        raise ReleaseError(f"{where}: missing; there is no release {release_id}")
    check_signature(raw, lambda: store.read(f"{release_id}/{SIGNATURE}", LARGEST), where)
    manifest = parse_manifest(raw, where)
    if manifest.id != release_id:
        raise ReleaseError(f"{where}: its content was changed after the release {release_id} was made")
    return manifest


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """A manifest whose id is that of its content.

    Raises:
        ReleaseError: it is none, or it was changed.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{where}: not JSON ({_brief(error)})") from error
    version = body.get("schema_version") if isinstance(body, dict) else None
    if version != SCHEMA_VERSION:
        raise ReleaseError(f"{where}: schema version {str(version)[:80]}; this newfound reads {SCHEMA_VERSION}")
    try:
        manifest, identity = Manifest.model_validate(body), identity_of(body)
    except (ValidationError, ValueError, RecursionError, OverflowError) as error:
        raise ReleaseError(f"{where}: not a manifest ({_brief(error)})") from error
    if manifest.id != identity:
        raise ReleaseError(f"{where}: its content was changed after the release was made")
    return manifest


def files_of(parts: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Every file of some files and folders, by its name in the release.

    Raises:
        ReleaseError: a part is missing or empty.
    """
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


def record_of(path: Path) -> FileRecord:
    """A file as a manifest records it."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(sha256=digest.hexdigest(), bytes=size)


def verify_files(folder: Path, manifest: Manifest, needed: Set[str]) -> None:
    """Holds every file of a folder against the manifest.

    Args:
        folder: the release's copy.
        manifest: the release's.
        needed: names of the files that must be there.

    Raises:
        ReleaseError: a file is missing, changed, or not named in the manifest.
    """
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
        if record_of(path).sha256 != expected.sha256:
            raise ReleaseError(f"{path}: its sha256 differs from the manifest's")
    named = {folder / name for name in (*manifest.files, MANIFEST, SIGNATURE)}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        if path not in named:
            raise ReleaseError(f"{path}: not named in the manifest")
    check_made_together({name: folder / name for name in needed if name.endswith(".json")})


def check_made_together(records: Mapping[str, Path]) -> None:
    """Table, ranker and decision name the clusters that they were made for; all of them must be these.

    Raises:
        ReleaseError: they are not, or a record cannot be read.
    """
    if "clusters/clusters.json" not in records:
        return
    clusters = _digest_in(records["clusters/clusters.json"], "digest")
    for name in ("table/table.json", "ranker/ranker.json", "decision/decision.json"):
        if name in records and (made_for := _digest_in(records[name], "clusters_digest")) != clusters:
            raise ReleaseError(f"{name}: made for clusters {made_for[:12]}, but the release has {clusters[:12]}")


def _digest_in(file: Path, key: str) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))[key])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseError(f"{file}: not a record with {key!r} ({_brief(error)})") from error


def identity_of(body: Mapping[str, Any]) -> str:
    """The id that a manifest has by its time and everything else that it holds."""
    content = {key: value for key, value in body.items() if key != "id"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{datetime.fromisoformat(body['created']):%Y%m%dT%H%M%S}-{digest[:12]}"


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
