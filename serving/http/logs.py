"""The services' logs: JSON lines, and a count of those that nobody read."""

from __future__ import annotations

import logging
from typing import Final

import orjson

from newfound.service.logs import JsonLines, route_logs
from serving.metrics import LOG_DROPPED

ACCESS: Final = logging.getLogger("newfound.serving.access")
# A line a request from each of them would cost more than the request's work.
_QUIET: Final = ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access")


def set_up_logs(level: int = logging.INFO) -> None:
    """Routes all logs and warnings, KServe's and uvicorn's too, through one handler."""
    route_logs(JsonLines(dropped=LOG_DROPPED.inc, dumps=lambda line: orjson.dumps(line, default=str)), _QUIET, level)
    logging.getLogger("kserve").setLevel(logging.ERROR)
