"""`python -m monitoring.collector`: starts the collector.

Secrets come from the environment: NEWFOUND_USER_KEY (key of the users' hashes, shared with the explorer),
NEWFOUND_COLLECTOR_TOKEN (optional bearer token of senders), NEWFOUND_STORE (the store's URL, which may hold a
password).
"""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from feature_repo.store import open_store, push
from monitoring.settings import STORE, MonitoringConfig
from monitoring.store.database import wait_for
from newfound.config import load_settings


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
    import uvicorn

    from monitoring.collector.app import create_app
    from monitoring.collector.pusher import Pusher
    from monitoring.settings import secret_key

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings, secret = load_settings(MonitoringConfig, config), secret_key(os.environ)
    url = os.environ.get(STORE, "sqlite:///runs/monitoring/events.db")
    store = wait_for(url, secret, 60, quota=settings.user_events, statement_s=settings.statement_seconds)
    pusher = None
    if features is not None:
        feast = open_store(repository=features)  # the import takes seconds: before the first event, not with it
        pusher = Pusher(store, settings, partial(push, feast), length=history_length, root=releases, cache=cache)
    app = create_app(store, settings, secret, token=os.environ.get("NEWFOUND_COLLECTOR_TOKEN") or None, pusher=pusher)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)
