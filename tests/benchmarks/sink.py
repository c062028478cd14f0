"""``python -m tests.benchmarks.sink PORT``: takes events and throws them away."""

from __future__ import annotations

import sys

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=202)


def main() -> None:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/events", take)
    app.router.add_get("/health", lambda request: web.Response())
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
