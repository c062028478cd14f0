"""Logs as JSON lines, written by a thread of their own.

They hold request and release ids and keyed hashes of user ids, never bodies. Where nobody reads the process's stderr,
lines are dropped and counted: a full pipe must hold up neither requests nor the end of the process.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final

import orjson

from serving.metrics import LOG_DROPPED

ACCESS = logging.getLogger("newfound.serving.access")
STDERR: Final = 2
FLUSH_S: Final = 1.0
"""Seconds that the end of the process waits for lines to be written."""


class JsonLines(logging.Handler):
    """Writes records as JSON lines, in batches.

    Args:
        descriptor: file descriptor to write to.
        most: most lines that may wait; further ones are dropped and counted.
        seconds: how long a line below WARNING may wait for others.
    """

    def __init__(self, descriptor: int = STDERR, most: int = 10_000, seconds: float = 0.25) -> None:
        super().__init__()
        self._descriptor, self._most, self._seconds = descriptor, most, seconds
        self._lines: deque[bytes] = deque()
        self._urgent = threading.Event()
        self._writing = False
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) >= self._most:
            LOG_DROPPED.inc()
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
        self._lines.append(orjson.dumps(line, default=str))
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
                LOG_DROPPED.inc(len(lines))  # nobody reads them any more
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


def set_up_logs(level: int = logging.INFO) -> None:
    """Routes all logs and warnings, KServe's and uvicorn's too, through one handler."""
    root = logging.getLogger()
    root.handlers = [JsonLines()]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)  # a line a request from each of them would cost more than the request's work
    logging.getLogger("kserve").setLevel(logging.ERROR)
