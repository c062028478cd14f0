"""The takedown list: what must not be shown any more, whatever release serves.

It is one small JSON file beside the releases, `{"items": [...], "clusters": [...]}`, written by whoever is allowed to;
everything that recommends reads it, and the services read it anew every second. The first publication writes an empty
one. From then on a list that is missing or malformed is an error: nobody may conclude that nothing was taken down.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from newfound.errors import ReleaseError
from newfound.release.storage import Storage

FILE: Final = "takedown.json"
LARGEST: Final = 32 << 20  # bytes


@dataclass(frozen=True)
class Takedown:
    """Items and tree nodes that must not be shown any more."""

    items: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()


def read_takedown(root: str) -> Takedown:
    """The list beside the releases.

    Args:
        root: folder or URL of all releases.

    Raises:
        ReleaseError: it is not there, or the file is no such list.
        OSError: it cannot be read.
    """
    store = Storage(root)
    raw = store.read(FILE, LARGEST)
    if raw is None:
        raise ReleaseError(
            f"{store.name_of(FILE)}: missing, so nobody knows what was taken down; expected the list "
            "(`newfound takedown start` writes an empty one)"
        )
    return parse_takedown(raw, store.name_of(FILE))


def parse_takedown(raw: bytes, where: str) -> Takedown:
    """A list from its JSON.

    Raises:
        ReleaseError: it is none.
    """
    try:
        listed: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{where}: not JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(listed, dict) or not set(listed) <= {"items", "clusters"}:
        raise ReleaseError(f"{where}: expected the keys items and clusters, nothing else")
    for name, ids in listed.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ReleaseError(f"{where}: {name} is no list of ids")
    return Takedown(frozenset(listed.get("items", ())), frozenset(listed.get("clusters", ())))


def start_takedown(store: Storage) -> bool:
    """Writes an empty list where there is none; whether it did."""
    with store.exclusive():
        if store.read(FILE, LARGEST) is not None:
            return False
        return store.write_if(FILE, _dump(Takedown()), None)


def change_takedown(root: str, change: Callable[[Takedown], Takedown]) -> Takedown:
    """Changes the list; of two changes at once, neither is lost.

    Args:
        root: folder or URL of all releases.
        change: makes the new list of the old one; may be called more than once.

    Returns:
        The new list.

    Raises:
        ReleaseError: there is no list, or it is malformed.
    """
    store = Storage(root)
    for _ in range(10):
        with store.exclusive():
            raw, version = store.read_with_version(FILE, LARGEST)
            changed = change(read_takedown(root) if raw is None else parse_takedown(raw, store.name_of(FILE)))
            if store.write_if(FILE, _dump(changed), version):
                return changed
    raise ReleaseError(f"{store.name_of(FILE)}: changed by others all the time; try again")


def _dump(takedown: Takedown) -> bytes:
    listed = {"items": sorted(takedown.items), "clusters": sorted(takedown.clusters)}
    return json.dumps(listed, indent=1).encode() + b"\n"
