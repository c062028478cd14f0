"""``python -m serving.ranker --releases releases --http_port 8081``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# One request is one thread's work; idle OpenMP workers would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    """Parses and starts."""
    import torch
    from kserve.model_server import app

    from newfound.compute.allocator import keep_freed_memory
    from newfound.config import load_settings
    from serving.http.openapi import describe
    from serving.http.server import Server, arguments
    from serving.ranker.model import PARTS, RankedAll, RankerModel, build_ranker, request_model
    from serving.releases import Releases
    from serving.settings import ServingConfig

    options = arguments("newfound's ranker as a KServe predictor").parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    config = load_settings(ServingConfig, options.settings)
    with tempfile.TemporaryDirectory(prefix="newfound-ranker-", dir=options.cache) as cache:
        releases = Releases(
            options.releases, Path(cache), PARTS, build_ranker, config.watch_ms / 1000, pinned=options.release
        )
        model = RankerModel(options.model_name, releases, config)
        app.add_api_route("/releases", model.releases_loaded, methods=["GET"])
        describe(
            app, options.model_name, request_model(config), RankedAll, "Rank items within clusters", "newfound ranker"
        )
        releases.start()

        async def started() -> None:
            pass

        async def stopped() -> None:
            releases.stop()

        Server(options, config).run(model, started, stopped)


if __name__ == "__main__":
    main()
