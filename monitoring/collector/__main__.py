"""`python -m monitoring.collector`: starts the collector.

Secrets come from the environment: NEWFOUND_USER_KEY (key of the users' hashes, shared with the explorer),
NEWFOUND_COLLECTOR_TOKEN (optional bearer token of senders), NEWFOUND_STORE (the store's URL, which may hold a
password).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from newfound.service.signals import exit_on_sigterm


def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    config: Annotated[Path | None, typer.Option(help="Monitoring YAML; defaults where absent.")] = None,
    features: Annotated[Path | None, typer.Option(help="Feature repository; histories are not pushed without.")] = None,
    history_length: Annotated[int, typer.Option(help="Events of a history row, as in training.")] = 1000,
    releases: Annotated[str | None, typer.Option(help="Root of releases, for the users' interests.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Local folder for releases of a remote root.")] = None,
) -> None:
    """Receives CloudEvents at POST /v1/events; metrics at /metrics."""
    exit_on_sigterm()
    import uvicorn

    from feature_repo.store import open_store, push
    from monitoring.collector.app import create_app
    from monitoring.collector.metrics import Metrics
    from monitoring.collector.pusher import Pusher
    from monitoring.collector.server import server_config
    from monitoring.settings import STORE, MonitoringConfig, secret_key
    from monitoring.store.database import wait_for
    from newfound.service.logs import JsonLines, route_logs
    from newfound.settings import load_settings

    metrics = Metrics()
    route_logs(JsonLines(dropped=metrics.lines.inc), ("uvicorn", "uvicorn.error", "uvicorn.access"))
    settings, secret = load_settings(MonitoringConfig, config), secret_key(os.environ)
    url = os.environ.get(STORE, "sqlite:///runs/monitoring/events.db")
    store = wait_for(url, secret, 60, quota=settings.user_events, statement_s=settings.statement_seconds)
    pusher = None
    if features is not None:
        feast = open_store(repository=features)  # the import takes seconds: before the first event, not with it
        pusher = Pusher(store, settings, partial(push, feast), length=history_length, root=releases, cache=cache)
    token = os.environ.get("NEWFOUND_COLLECTOR_TOKEN") or None
    app = create_app(store, settings, secret, token=token, pusher=pusher, metrics=metrics)
    server = uvicorn.Server(server_config(app, settings, metrics, host=host, port=port))
    server.run()
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
