"""Assembles the explorer's parts, and starts and stops them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newfound.errors import ConfigError
from serving.circuit_breaker import CircuitBreaker
from serving.explorer.features import Features, Reopened
from serving.explorer.live_planner import LivePlanner
from serving.explorer.loaded_release import LoadedRelease
from serving.explorer.model import ExplorerModel
from serving.explorer.outbox import Outbox
from serving.explorer.ranker_client import NotLoaded, RankerClient, Rejected
from serving.explorer.reporting import Reporter
from serving.http.server import arguments as shared
from serving.metrics import BREAKER, CALLS
from serving.page import PATHS, Page
from serving.planner.client import PlannerClient
from serving.releases import Releases
from serving.settings import ServingConfig

USER_KEY = "NEWFOUND_USER_KEY"
TOKEN = "NEWFOUND_COLLECTOR_TOKEN"


@dataclass(frozen=True)
class Service:
    """The model with what must run beside it."""

    model: ExplorerModel
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]
    pages: str


def arguments() -> argparse.ArgumentParser:
    """The explorer's arguments."""
    parser = shared("newfound's explorer as a KServe transformer")
    parser.add_argument("--feast", help="Folder of Feast's repository; without it, requests bring their histories.")
    parser.add_argument("--history_length", type=int, default=1000, help="Events that a stored history holds at most.")
    parser.add_argument("--planner_url", default=os.environ.get("NEWFOUND_PLANNER_URL"), help="Before /v1/completions.")
    parser.add_argument("--planner_model", help="The planner's name at its engine; its name in the release by default.")
    parser.add_argument("--collector", default=os.environ.get("NEWFOUND_COLLECTOR_URL"), help="Where events go.")
    parser.add_argument("--spool", default="spool", help="Folder for events while the collector is away.")
    parser.add_argument("--page", action="store_true", help="Serve the page at /page.")
    parser.add_argument("--page_users", help="Parquet file whose user_id column the page offers.")
    return parser


def assemble(
    options: argparse.Namespace, config: ServingConfig, releases: Releases[LoadedRelease], app: Any
) -> Service:
    """Builds the explorer from its arguments.

    Args:
        options: parsed arguments.
        config: bounds and times.
        releases: those loaded.
        app: KServe's FastAPI application, for the page.
    """
    breakers = {
        "features": _breaker("features", 4 * config.in_flight, config.features_ms, config),
        "ranker": _breaker("ranker", config.in_flight, config.ranker_ms, config, passes=(NotLoaded, Rejected)),
        "planner": _breaker("planner", config.planner_in_flight, config.planner_background_ms, config),
    }
    ranker = RankerClient(options.predictor_host, options.model_name, config.in_flight, config.body_bytes)
    live = None
    if options.planner_url:
        live = PlannerClient(options.planner_url, options.planner_model, config.planner_in_flight)
    outbox = Outbox(options.collector, Path(options.spool), config, os.environ.get(TOKEN))
    store = None
    if options.feast:
        folder = Path(options.feast)
        store = Reopened(lambda: Features(folder, options.history_length))
    model = ExplorerModel(
        options.model_name,
        releases,
        store,
        ranker,
        LivePlanner(live, breakers["planner"], config),
        Reporter(outbox, _secret(options.collector)),
        config,
        breakers,
    )
    if options.page:
        Page(model, options.page_users).add_to(app)

    async def start() -> None:
        releases.start()
        for part in (ranker, live, outbox, store):
            if part is not None:
                await part.open()

    async def stop() -> None:
        releases.stop()
        for part in (store, outbox, live, ranker):
            if part is not None:
                await part.close()

    return Service(model, start, stop, PATHS if options.page else "")


def _breaker(
    part: str, in_flight: int, patience_ms: float, config: ServingConfig, passes: tuple[type[Exception], ...] = ()
) -> CircuitBreaker:
    breaker = CircuitBreaker(part, in_flight, config.breaker_failures, config.breaker_open_ms, patience_ms, passes)
    counters = {
        outcome: CALLS.labels(part, outcome) for outcome in ("ok", "error", "deadline", "busy", "open", "refused")
    }
    BREAKER.labels(part).set_function(lambda: float(breaker.state))

    def count(outcome: str) -> None:
        counters[outcome].inc()

    breaker.outcomes = count
    return breaker


def _secret(collector: str | None) -> bytes | None:
    """The key of the users' hashes; a random one where nothing is sent that it would have to agree with."""
    key = os.environ.get(USER_KEY, "")
    if collector and len(key) < 16:
        raise ConfigError(f"{USER_KEY}: expected a secret of at least 16 characters, the same as the collector's")
    return key.encode() or None
