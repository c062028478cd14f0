"""``python -m serving.planner``: the release's own planner behind the protocol of vLLM, for a machine without it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from newfound.service.signals import exit_on_sigterm


def arguments() -> argparse.ArgumentParser:
    """The runtime's arguments."""
    parser = argparse.ArgumentParser(
        prog="serving.planner", description="newfound's planner for a machine without vLLM"
    )
    parser.add_argument("--releases", required=True, help="Folder or URL of all releases.")
    parser.add_argument("--cache", default="cache", help="Local folder for releases of a remote root.")
    parser.add_argument("--host", default="0.0.0.0", help="Address to listen on.")
    parser.add_argument("--http_port", type=int, default=8080, help="Port to listen on.")
    return parser


def main() -> None:
    """Parses and starts."""
    exit_on_sigterm()
    import uvicorn

    from newfound.service.connections import bounded_protocol
    from serving.http.logs import set_up_logs
    from serving.planner.runtime import Runtime, create_app
    from serving.settings import ServingConfig
    from serving.tracing import start_tracing

    options = arguments().parse_args()
    set_up_logs()
    app = create_app(Runtime(options.releases, Path(options.cache)))
    if tracing := start_tracing("newfound-planner", os.environ):
        app = tracing.asgi(app)
    bounds = ServingConfig()
    protocol = bounded_protocol(bounds.receive_ms / 1000, bounds.connections_per_peer, b'{"error": "busy"}')
    uvicorn.run(app, host=options.host, port=options.http_port, http=protocol, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
