"""Lengths in the header of a GGUF file, held against the file itself before its reader trusts them.

The reader counts to whatever length an array claims, past the file's end: a few hundred bytes keep it busy for ever.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of scalars by their type
_STRING: Final = 8
_ARRAY: Final = 9
_DEEPEST: Final = 4  # arrays in arrays
_FIRST: Final = 24  # magic, version, number of tensors, number of fields


def check_header(path: Path) -> None:
    """Walks the fields of a file's metadata.

    Raises:
        ValueError: it is no GGUF, or a field is longer than the file.
    """
    if path.stat().st_size < _FIRST:
        raise ValueError("shorter than a header")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != b"GGUF":
            raise ValueError("does not begin with GGUF")
        walk = _Walk(content)
        for _ in range(walk.number(16, "Q")):
            walk.skip(_STRING)
            walk.skip(walk.take("I"))


class _Walk:
    """A position in the fields."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._size, self._at = content, len(content), _FIRST
        self._order = "<"
        if self.number(4, "I") & 0xFFFF == 0:  # the version, which is small: the other order of bytes
            self._order = ">"

    def number(self, at: int, kind: str) -> int:
        """A number of struct's kind at a place."""
        try:
            return int(struct.unpack_from(self._order + kind, self._content, at)[0])
        except struct.error as error:
            raise ValueError("ends within a field") from error

    def take(self, kind: str) -> int:
        """The next number."""
        found = self.number(self._at, kind)
        self._forward(struct.calcsize(f"<{kind}"))
        return found

    def skip(self, kind: int, depth: int = 0) -> None:
        """Goes on behind a value of GGUF's kind."""
        if kind in _SIZES:
            self._forward(_SIZES[kind])
        elif kind == _STRING:
            self._forward(self.take("Q"))
        elif kind == _ARRAY and depth < _DEEPEST:
            inner, count = self.take("I"), self.take("Q")
            if inner in _SIZES:
                self._forward(count * _SIZES[inner])
            else:
                for _ in range(count):  # each takes bytes of the file
                    self.skip(inner, depth + 1)
        else:
            raise ValueError(f"a field of an unknown type {kind}")

    def _forward(self, count: int) -> None:
        self._at += count
        if self._at > self._size:
            raise ValueError(f"a field claims {count} bytes, more than are left")
