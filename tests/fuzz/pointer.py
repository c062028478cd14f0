"""Fuzz target: the pointers `current` and `current.previous`."""

from __future__ import annotations

from typing import Final

import fsspec

from newfound.errors import ReleaseError
from newfound.release.manifest import is_id
from newfound.release.pointer import POINTER, PREVIOUS, parse_pointer, read_pointer
from newfound.release.storage import Storage

_ID: Final = "20260131T093000-0123456789ab"
_ROOT: Final = "memory://fuzz-pointer"
SEEDS: Final = [
    b"",
    b'{"release": "%s"}' % _ID.encode(),
    b'{"release": "%s", "parent": null, "move": 3, "held": true, "at": ""}' % _ID.encode(),
    b'{"release": "../../etc"}',
    b'{|{"release": "%s"}' % _ID.encode(),
]


class Target:
    """Whatever lies there, readers get the id of a release, none, or an error that says so."""

    def __init__(self) -> None:
        self.fs = fsspec.filesystem("memory")

    def __call__(self, data: bytes) -> None:
        now, _, before = data.partition(b"|")
        parsed = parse_pointer(now)
        assert parsed is None or is_id(parsed.release)
        store = Storage(_ROOT)
        self.fs.pipe_file(store.name_of(POINTER), now)
        self.fs.pipe_file(store.name_of(PREVIOUS), before)
        try:
            found = read_pointer(store)
        except ReleaseError:
            assert parsed is None
            return
        assert found is not None and is_id(found.release)
