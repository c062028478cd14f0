"""``python -m serving.ranker --releases releases --http_port 8081``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from newfound.service.signals import exit_on_sigterm

# One request is one thread's work; idle OpenMP workers would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    """Parses and starts."""
    exit_on_sigterm()
    import torch
    from kserve.model_server import app

    from newfound.compute.allocator import keep_freed_memory
    from newfound.settings import load_settings
    from serving.http.openapi import describe
    from serving.http.server import Server, arguments
    from serving.ranker.loaded_release import OPTIONAL, PARTS, build_ranker
    from serving.ranker.model import RankedAll, RankerModel, request_model
    from serving.releases import Releases
    from serving.settings import ServingConfig
    from serving.tracing import start_tracing

    options = arguments("newfound's ranker as a KServe predictor").parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    tracing = start_tracing("newfound-ranker", os.environ)
    config = load_settings(ServingConfig, options.settings)
    with tempfile.TemporaryDirectory(prefix="newfound-ranker-", dir=options.cache) as cache:
        watch = config.watch_ms / 1000
        releases = Releases(
            options.releases, Path(cache), PARTS, build_ranker, watch, optional=OPTIONAL, pinned=options.release
        )
        model = RankerModel(options.model_name, releases, config)
        app.add_api_route("/releases", model.releases_loaded, methods=["GET"])
        describe(
            app, options.model_name, request_model(config), RankedAll, "Rank items within clusters", "newfound ranker"
        )

        async def start() -> None:
            releases.start()

        async def stop() -> None:
            releases.stop()

        bounds = config.model_copy(update={"body_bytes": config.ranker_body_bytes})
        Server(options, bounds, tracing=tracing).run(model, start, stop)


if __name__ == "__main__":
    main()
