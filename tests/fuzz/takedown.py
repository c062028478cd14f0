"""Fuzz target: the takedown list."""

from __future__ import annotations

import json
from typing import Final

from newfound.errors import ReleaseError
from newfound.release.takedown import Takedown, parse_takedown
from tests.fuzz.draw import Draw

_LIST: Final = {"items": ["a", "b"], "clusters": ["c"]}
SEEDS: Final = [b"\0" + json.dumps(_LIST).encode(), b"\0{}", b"\1", b"\1\1\1\1\1", b"\0" + b"[" * 2000]


class Target:
    """What is no list is refused; it is never taken for an empty one."""

    def __call__(self, data: bytes) -> None:
        content = json.dumps(Draw(data[1:]).change(_LIST)).encode() if data[:1] == b"\1" else data[1:]
        try:
            found = parse_takedown(content, "takedown.json")
        except ReleaseError:
            return
        raw = json.loads(content)
        assert found == Takedown(frozenset(raw.get("items", ())), frozenset(raw.get("clusters", ())))
