"""kfp's local cache, held to its word.

kfp takes a cached result when every artifact's path exists. It does not see that a file within a folder is gone, or
that a release was removed. Both are looked after here, before a run; so is what no cached result refers to any more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newfound import release as releases
from newfound.errors import ReleaseError

MARKER = "__kfp_artifact__"


def drop_incomplete(cache: Path) -> int:
    """Forgets cached results of which a file is missing or has shrunk, or whose release does not verify.

    Args:
        cache: kfp's cache folder.

    Returns:
        How many were forgotten.
    """
    entries = list(cache.glob("*.json"))
    broken = [entry for entry in entries if not _is_whole(entry)]
    for entry in broken:
        entry.unlink()
    return len(broken)


def remove_leftovers(work: Path, cache: Path) -> None:
    """Removes the outputs of steps that no cached result refers to: what killed and failed runs left behind."""
    kept = {Path(artifact["uri"]).parent for entry in cache.glob("*.json") for artifact in _artifacts(entry)}
    for run in (folder for folder in work.iterdir() if folder.is_dir()) if work.is_dir() else ():
        for task in run.iterdir():
            if task not in kept:
                shutil.rmtree(task) if task.is_dir() else task.unlink()
        if not any(run.iterdir()):
            run.rmdir()


def find_entry(cache: Path, key: str) -> dict[str, Any]:
    """Artifacts of a cached result by name, each with `uri` and `metadata`.

    Args:
        cache: kfp's cache folder.
        key: the beginning of the cache key, which kfp logs.
    """
    return {artifact["name"]: artifact for entry in cache.glob(f"{key}*.json") for artifact in _artifacts(entry)}


def _artifacts(entry: Path) -> Iterator[dict[str, Any]]:
    for value in json.loads(entry.read_text(encoding="utf-8")).values():
        if isinstance(value, dict) and value.get(MARKER):
            yield value


def _is_whole(entry: Path) -> bool:
    try:
        artifacts = list(_artifacts(entry))
    except ValueError:
        return False
    return all(_has_its_files(artifact) and _has_its_release(artifact["metadata"]) for artifact in artifacts)


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
