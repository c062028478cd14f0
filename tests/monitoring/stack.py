"""Explorer, ranker, collector and Feast as they run together, each part real, over a release that nobody trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from monitoring.store.database import Store
from newfound.events import BATCH
from tests.monitoring import servers as parts
from tests.serving.conftest import LENGTH, Stack, launch
from tests.serving.store import environment
from tests.serving.synthetic import World

SECRET = parts.SECRET.encode()


@dataclass
class Live:
    """The running parts.

    Attributes:
        stack: explorer and ranker.
        collector: where clients and the explorer send events.
        store: what the collector writes; it knows everybody's past.
        environment: what tells a process which Feast store this is.
    """

    stack: Stack
    collector: parts.Collector
    store: Store
    environment: dict[str, str]

    def send(self, *events: Any) -> None:
        """Sends events as a client does; they are durable when this returns."""
        url = f"{self.collector.url}/v1/events"
        httpx.post(url, json=parts.batch(list(events)), headers={"content-type": BATCH}, timeout=30).raise_for_status()

    def ask(self, user: str) -> dict[str, Any]:
        """A slate of twenty, half of it new where there is something new to offer."""
        return self.stack.slate(user_id=user, k=20, novel=10, seed=7)

    def ask_undisturbed(self, user: str, seconds: float = 30) -> dict[str, Any]:
        """Asks until nothing had to be stepped around: only what is known of the user can change that slate."""
        until = time.monotonic() + seconds
        while (slate := self.ask(user))["degraded"]:
            if time.monotonic() > until:
                raise AssertionError(f"{user}: {slate['degraded']} were stepped around for {seconds:.0f} s")
        return slate

    def until_known(self, user: str, cluster: str, item: str, seconds: float = 30) -> tuple[dict[str, Any], float]:
        """Asks until a liked item is gone and its cluster is new no more: that slate, and how long it took to ask."""
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            asked = time.monotonic() - started
            slate = self.ask_undisturbed(user)
            novel = {slot["cluster"] for slot in slate["items"] if slot["slot"] == "novel"}
            if cluster not in novel and item not in {slot["item"] for slot in slate["items"]}:
                return slate, asked
            time.sleep(0.01)
        raise AssertionError(f"{user}: feedback did not reach the next request within {seconds:.0f} s")


@contextmanager
def live(
    folder: Path, redis: int | None = None, *, world: World | None = None, planner: int | None = None
) -> Iterator[Live]:
    """Starts everything.

    Args:
        folder: for releases, features, logs, spool and the store of events.
        redis: port of a Redis for Feast's online store; sqlite where None.
        world: what the release is made of.
        planner: port of a planner, which the caller starts.
    """
    told = environment(folder / "features", None if redis is None else f"127.0.0.1:{redis}")
    port = parts.free_port()
    stack = launch(
        folder,
        world or World(),
        settings={"deadline_ms": 4000, "ranker_ms": 2000, "features_ms": 1000, "planner_ms": 3000, "watch_ms": 200},
        environment=told,
        arguments=(
            *("--collector", f"http://127.0.0.1:{port}/v1/events"),
            *(("--planner_url", f"http://127.0.0.1:{planner}") if planner else ()),
        ),
    )
    options = ["--features", str(parts.ROOT / "feature_repo"), "--releases", str(stack.root)]
    options += ["--history-length", str(LENGTH)]
    collector = parts.Collector(f"sqlite:///{folder}/events.db", folder, options, told, port)
    opened = None
    try:
        collector.start()
        opened = Store(collector.store, SECRET)
        names = ("item_ids", "times", "engagements", "positives")
        opened.import_interactions(
            (row["user_id"], list(zip(*(row[n] for n in names), strict=True))) for row in stack.rows
        )
        stack.ranker.wait()
        stack.explorer.wait()
        yield Live(stack, collector, opened, told)
    finally:
        if opened is not None:
            opened.close()
        stack.explorer.stop()
        stack.ranker.stop()
        collector.stop()
