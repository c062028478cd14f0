"""The collector's server: uvicorn with bounds on connections, which one sender could otherwise take all of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import uvicorn

from monitoring.collector.metrics import Metrics
from monitoring.settings import MonitoringConfig
from newfound.service.connections import bounded_protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

_BUSY: Final = json.dumps({"detail": [{"problem": "too many connections of one address"}]}).encode()


def server_config(
    app: FastAPI, settings: MonitoringConfig, metrics: Metrics, *, host: str, port: int
) -> uvicorn.Config:
    """The configuration of a server that gives up on late headers and on peers with too many connections.

    Args:
        app: the collector.
        settings: bounds.
        metrics: counts what is closed.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
    """
    protocol = bounded_protocol(settings.header_seconds, settings.connections_per_peer, _BUSY, metrics.close)
    return uvicorn.Config(app, host=host, port=port, http=protocol, log_config=None, access_log=False)
