"""kfp's local cache, held to its word.

kfp takes a cached result when every artifact's path exists. It does not see that a file within a folder is gone, or
that a release was removed. Both are looked after here, before a run; so is what no cached result refers to any more.

Nothing is removed but what a run made: a run's outputs lie in a folder that carries our marker, and kfp's entries carry
kfp's names. Whatever else lies beside them is somebody's own.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newfound.errors import ReleaseError
from newfound.release import store as releases

MARKER = ".newfound-run"
_ARTIFACT = "__kfp_artifact__"
_ENTRY = re.compile(r"[0-9a-f]{64}\.json")


def new_work_folder(work: Path) -> Path:
    """A fresh folder for a run's outputs, with the marker by which later runs know that it may be emptied.

    Args:
        work: the folder of all runs' outputs.
    """
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    folder.chmod(0o755)
    (folder / MARKER).touch()
    return folder


def drop_incomplete(cache: Path) -> int:
    """Forgets cached results of which a file is missing or has shrunk, or whose release does not verify.

    Args:
        cache: kfp's cache folder.

    Returns:
        How many were forgotten.
    """
    broken = [entry for entry in _entries(cache) if not _is_whole(entry)]
    for entry in broken:
        entry.unlink()
    return len(broken)


def remove_leftovers(work: Path, cache: Path) -> None:
    """Removes the outputs of steps that no cached result refers to: what killed and failed runs left behind.

    Args:
        work: the folder of all runs' outputs; only those that carry the marker are looked into.
        cache: kfp's cache folder.
    """
    kept = {Path(artifact["uri"]).parent for entry in _entries(cache) for artifact in _artifacts(entry)}
    for marker in work.glob(f"*/{MARKER}"):
        run = marker.parent
        for task in run.glob("*/*"):
            if task not in kept:
                shutil.rmtree(task) if task.is_dir() and not task.is_symlink() else task.unlink()
        for pipeline in (folder for folder in run.iterdir() if folder.is_dir() and not any(folder.iterdir())):
            pipeline.rmdir()
        if [path.name for path in run.iterdir()] == [MARKER]:
            shutil.rmtree(run)


def find_entry(cache: Path, key: str) -> dict[str, Any]:
    """Artifacts of a cached result by name, each with `uri` and `metadata`.

    Args:
        cache: kfp's cache folder.
        key: the beginning of the cache key, which kfp logs.
    """
    return {artifact["name"]: artifact for entry in cache.glob(f"{key}*.json") for artifact in _artifacts(entry)}


def _entries(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*.json") if _ENTRY.fullmatch(path.name) and path.is_file()]


def _artifacts(entry: Path) -> Iterator[dict[str, Any]]:
    """The artifacts of a cached result.

    Raises:
        ValueError: the entry is not one of kfp's.
    """
    content = json.loads(entry.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{entry}: not a cached result")
    for value in content.values():
        if isinstance(value, dict) and value.get(_ARTIFACT):
            whole = isinstance(value.get("uri"), str) and isinstance(value.get("metadata"), dict) and "name" in value
            if not whole:
                raise ValueError(f"{entry}: an artifact without name, uri or metadata")
            yield value


def _is_whole(entry: Path) -> bool:
    try:
        return all(
            _has_its_files(artifact) and _has_its_release(artifact["metadata"]) for artifact in _artifacts(entry)
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def _has_its_files(artifact: dict[str, Any]) -> bool:
    path = Path(artifact["uri"])
    # A live database among them may have grown since.
    sizes: dict[str, float] = artifact["metadata"].get("inventory", {})
    files = {path / name: size for name, size in sizes.items()}
    return path.exists() and all(file.is_file() and file.stat().st_size >= size for file, size in files.items())


def _has_its_release(metadata: dict[str, Any]) -> bool:
    if "release" not in metadata:
        return True
    try:
        releases.verify(metadata["root"], metadata["release"])
    except ReleaseError:
        return False
    return True
