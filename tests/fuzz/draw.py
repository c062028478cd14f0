"""Structures drawn from a fuzzer's bytes, so that what is tried gets past the first brace."""

from __future__ import annotations

from typing import Any, Final

_NUMBERS: Final = (0, 1, -1, 2**31, 2**53, 2**64, 0.5, -0.0, 1e308, float("nan"), float("inf"))
_TEXTS: Final = (
    "",
    "a",
    "..",
    "../..",
    "/",
    "a/b",
    "a/../b",
    "\\",
    "\0",
    "\ud800",
    "é",
    "manifest.json",
    "0" * 64,
    "x" * 300,
)


class Draw:
    """Reads choices from bytes; when they are used up, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        """The next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def choice(self, options: Any) -> Any:
        """One of some."""
        return options[self.byte() % len(options)]

    def text(self) -> str:
        """A text that is often an awkward one."""
        kind = self.byte()
        if kind < 192:
            return str(_TEXTS[kind % len(_TEXTS)])
        return "".join(chr(self.byte() | self.byte() << 8) for _ in range(kind % 16))

    def value(self, depth: int = 0) -> Any:
        """A JSON value."""
        kind = self.byte() % (8 if depth < 4 else 6)
        if kind == 0:
            return None
        if kind == 1:
            return bool(self.byte() % 2)
        if kind in (2, 3):
            return self.choice(_NUMBERS)
        if kind in (4, 5):
            return self.text()
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.byte() % 4)]
        return {self.text(): self.value(depth + 1) for _ in range(self.byte() % 4)}

    def change(self, whole: Any) -> Any:
        """A JSON value in which some part is another, goes missing, or comes anew."""
        if isinstance(whole, dict) and whole and self.byte() % 4:
            key = self.choice(sorted(whole))
            kind = self.byte() % 5
            if kind == 0:
                return {name: value for name, value in whole.items() if name != key}
            if kind == 1:
                return {**whole, self.text(): self.value()}
            if kind == 2:
                return {(self.text() if name == key else name): value for name, value in whole.items()}
            return {**whole, key: self.change(whole[key])}
        if isinstance(whole, list) and whole and self.byte() % 4:
            at = self.byte() % len(whole)
            return [*whole[:at], self.change(whole[at]), *whole[at + 1 :]]
        return self.value()
