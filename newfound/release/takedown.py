"""The takedown list: what must not be shown any more, whatever release serves.

It is one small JSON file beside the releases, `{"items": [...], "clusters": [...]}`, written by whoever is allowed to;
everything that recommends reads it, and the services read it anew every second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import fsspec

from newfound.errors import ReleaseError

FILE: Final = "takedown.json"


@dataclass(frozen=True)
class Takedown:
    """Items and tree nodes that must not be shown any more."""

    items: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()


def read_takedown(root: str) -> Takedown:
    """The list beside the releases; empty where there is none.

    Args:
        root: folder or URL of all releases.

    Raises:
        ReleaseError: the file is there but is no such list.
    """
    fs, base = fsspec.core.url_to_fs(root)
    path = f"{base}/{FILE}"
    try:
        raw = json.loads(fs.cat_file(path))
    except FileNotFoundError:
        return Takedown()
    except ValueError as error:
        raise ReleaseError(f"{path}: not JSON ({error})") from error
    if not isinstance(raw, dict) or not set(raw) <= {"items", "clusters"}:
        raise ReleaseError(f"{path}: expected the keys items and clusters, nothing else")
    for name, ids in raw.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ReleaseError(f"{path}: {name} is no list of ids")
    return Takedown(frozenset(raw.get("items", ())), frozenset(raw.get("clusters", ())))
