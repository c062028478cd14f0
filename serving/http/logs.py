"""Logs as JSON lines. They hold request and release ids and keyed hashes of user ids, never bodies."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime

import orjson

ACCESS = logging.getLogger("newfound.serving.access")


class JsonLines(logging.Handler):
    """Writes records as JSON lines, in batches: a full pipe must not hold up requests line by line.

    Args:
        seconds: how long a line below WARNING may wait.
    """

    def __init__(self, seconds: float = 0.25) -> None:
        super().__init__()
        self._lines: list[bytes] = []
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
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
            self.flush()
        elif self._timer is None:
            self._timer = threading.Timer(self._seconds, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        self.acquire()
        try:
            lines, self._lines, self._timer = self._lines, [], None
            if lines:
                sys.stderr.buffer.write(b"\n".join(lines) + b"\n")
                sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass  # nobody reads them any more
        finally:
            self.release()


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def set_up_logs(level: int = logging.INFO) -> None:
    """Routes all logs, KServe's and uvicorn's too, through one handler."""
    handler = JsonLines()
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)  # a line a request from each of them would cost more than the request's work
    logging.getLogger("kserve").setLevel(logging.ERROR)
