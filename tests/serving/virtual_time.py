"""An event loop whose clock goes as fast as there is work: hours of waiting take no time."""

from __future__ import annotations

import asyncio


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer whenever nothing is ready. For stories without sockets or threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            # A cancelled timer may come first: the loop drops it, and would then wait for the next one in real time.
            waiting = (timer.when() for timer in self._scheduled if not timer.cancelled())  # type: ignore[attr-defined]
            self._now = max(self._now, min(waiting, default=self._now))
        super()._run_once()  # type: ignore[misc]
