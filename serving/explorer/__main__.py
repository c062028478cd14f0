"""``python -m serving.explorer --releases releases --predictor_host 127.0.0.1:8081 --http_port 8080``."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from newfound.service.signals import exit_on_sigterm


def main() -> None:
    """Parses and starts."""
    exit_on_sigterm()
    from kserve.model_server import app

    from newfound.compute.allocator import keep_freed_memory
    from newfound.settings import load_settings
    from serving.explorer.loaded_release import OPTIONAL, PARTS, build_loaded_release
    from serving.explorer.ranker_client import ranker_has_loaded
    from serving.explorer.service import arguments, assemble
    from serving.http.api import Predictions, request_model
    from serving.http.openapi import describe
    from serving.http.server import Server
    from serving.planner.client import FILES
    from serving.releases import Releases
    from serving.settings import ServingConfig
    from serving.tracing import start_tracing

    parser = arguments()
    options = parser.parse_args()
    if not options.predictor_host:
        parser.error("--predictor_host: expected the ranker's host and port")
    if options.predictor_protocol != "v1":
        parser.error("--predictor_protocol: expected v1")
    keep_freed_memory()
    tracing = start_tracing("newfound-explorer", os.environ)
    config = load_settings(ServingConfig, options.settings)
    with tempfile.TemporaryDirectory(prefix="newfound-explorer-", dir=options.cache) as cache:
        build = functools.partial(
            build_loaded_release, planner=options.planner_url is not None, remembered=config.remembered_answers
        )
        optional = (*OPTIONAL, *(FILES if options.planner_url else ()))
        has_loaded = functools.partial(ranker_has_loaded, options.predictor_host)
        watch = config.watch_ms / 1000
        releases = Releases(
            options.releases, Path(cache), PARTS, build, watch, has_loaded, optional, pinned=options.release
        )
        describe(app, options.model_name, request_model(config), Predictions, "Recommend items", "newfound explorer")
        service = assemble(options, config, releases, app)
        Server(options, config, service.pages, tracing).run(service.model, service.start, service.stop)


if __name__ == "__main__":
    main()
