"""Logs as JSON lines, written by a thread of their own.

They hold ids of requests and releases and keyed hashes of user ids, never bodies. Where nobody reads the process's
stderr, lines are dropped and counted: a full pipe must hold up neither requests nor the end of the process.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

STDERR: Final = 2
FLUSH_S: Final = 1.0
"""Seconds that the end of the process waits for lines to be written."""


def _dumps(line: dict[str, Any]) -> bytes:
    return json.dumps(line, default=str).encode("utf-8", "backslashreplace")


class JsonLines(logging.Handler):
    """Writes records as JSON lines, in batches.

    Args:
        descriptor: file descriptor to write to.
        most: most lines that may wait; further ones are dropped and counted.
        seconds: how long a line below WARNING may wait for others.
        dropped: told of lines that are dropped, and how many.
        dumps: JSON of a line.
    """

    def __init__(
        self,
        descriptor: int = STDERR,
        most: int = 10_000,
        seconds: float = 0.25,
        dropped: Callable[[int], object] = lambda count: None,
        dumps: Callable[[dict[str, Any]], bytes] = _dumps,
    ) -> None:
        super().__init__()
        self._descriptor, self._most, self._seconds = descriptor, most, seconds
        self._dropped, self._dumps = dropped, dumps
        self._lines: deque[bytes] = deque()
        self._urgent = threading.Event()
        self._writing = False
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) >= self._most:
            self._dropped(1)
            return
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            # The type and the place: a message may quote what a client sent.
            line["error"] = type(record.exc_info[1]).__name__
            line["at"] = _innermost(record.exc_info[1])
        self._lines.append(self._dumps(line))
        if record.levelno >= logging.WARNING or len(self._lines) >= 512:
            self._urgent.set()

    def flush(self) -> None:
        """Waits until everything is written, but not for long."""
        self._urgent.set()
        end = time.monotonic() + FLUSH_S
        while (self._lines or self._writing) and time.monotonic() < end:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            self._urgent.wait(self._seconds)
            self._urgent.clear()
            if not self._lines:
                continue
            self._writing = True
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                self._write(b"\n".join(lines) + b"\n")
            except OSError:
                self._dropped(len(lines))  # nobody reads them any more
            self._writing = False

    def _write(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[os.write(self._descriptor, left) :]


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def route_logs(handler: logging.Handler, quiet: Sequence[str] = (), level: int = logging.INFO) -> None:
    """Routes all logs and warnings through one handler.

    Args:
        handler: the only one from here on.
        quiet: loggers that have handlers of their own and write a line a request; they keep warnings alone.
        level: of all others.
    """
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in quiet:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
