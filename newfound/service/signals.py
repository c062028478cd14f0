"""Termination while a service starts."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def exit_on_sigterm() -> None:
    """Ends the process on SIGTERM from here on, until its server takes the signal over.

    The first process of a container has no default for it: while libraries are imported, SIGTERM would go unheard, and
    the container would be killed once its grace period is over.
    """
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
