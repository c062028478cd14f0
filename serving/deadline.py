"""A request's own time."""

from __future__ import annotations

import time


class Deadline:
    """A point in time by which an answer must be there.

    Args:
        milliseconds: how long from `since`.
        since: `time.monotonic()` at the request's arrival; now by default.
    """

    __slots__ = ("at",)

    def __init__(self, milliseconds: float, since: float | None = None) -> None:
        self.at = (time.monotonic() if since is None else since) + milliseconds / 1000

    def left(self, keep_ms: float = 0) -> float:
        """Seconds left, `keep_ms` milliseconds kept back; never negative."""
        return max(self.at - keep_ms / 1000 - time.monotonic(), 0.0)
