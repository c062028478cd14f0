"""Live queries of the planner through real processes: in each case that needs one, and in no other."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from newfound.recommend.catalogue import Catalogue
from newfound.release.store import current
from serving.local.processes import Service, free_port
from tests.serving.synthetic import World, publish_with_planner

WORLD = World(clusters=24, holes=40)
SETTINGS = {"deadline_ms": 4000, "planner_ms": 2000, "ranker_ms": 1500, "breaker_open_ms": 200}


@dataclass
class Live:
    """Explorer and planner over one release; no stored histories, no ranker."""

    url: str
    planner: Service
    catalogue: Catalogue

    def slate(self, *items: str, disliked: tuple[str, ...] = (), **instance: Any) -> dict[str, Any]:
        """The slate after these items."""
        history = [{"item": item, "positive": False} for item in disliked] + [{"item": item} for item in items]
        body = {"instances": [{"history": history, "k": 6, "novel": 2, "seed": 3, **instance}]}
        response = httpx.post(f"{self.url}/v1/models/newfound:predict", json=body, timeout=20)
        assert response.status_code == 200, response.text
        return response.json()["predictions"][0]

    def novel(self, slate: dict[str, Any]) -> list[tuple[str, str]]:
        return [(one["cluster"], one["reason"]) for one in slate["items"] if one["slot"] == "novel"]

    def answered(self, source: str) -> float:
        """How often the successors came from there."""
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f'newfound_answers_total{{source="{source}"}}'):
                return float(line.rpartition(" ")[2])
        return 0.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    root = publish_with_planner(WORLD, folder)
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    ports = {name: free_port() for name in ("explorer", "planner", "nobody")}
    shared = ["--releases", str(root), "--host", "127.0.0.1"]
    planner = Service.module(
        "planner",
        "serving.planner",
        [*shared, "--http_port", str(ports["planner"])],
        folder,
        f"http://127.0.0.1:{ports['planner']}/health",
        {"OMP_NUM_THREADS": "1"},
    ).start()
    explorer = Service.module(
        "explorer",
        "serving.explorer",
        [
            *shared,
            *("--model_name", "newfound", "--enable_grpc", "false", "--settings", str(folder / "settings.yaml")),
            *("--http_port", str(ports["explorer"]), "--predictor_host", f"127.0.0.1:{ports['nobody']}"),
            *("--planner_url", f"http://127.0.0.1:{ports['planner']}", "--spool", str(folder / "spool")),
        ],
        folder,
        f"http://127.0.0.1:{ports['explorer']}/v2/models/newfound/ready",
    ).start()
    try:
        planner.wait()
        explorer.wait()
        release = current(str(root))
        yield Live(f"http://127.0.0.1:{ports['explorer']}", planner, Catalogue.open(Path(root) / str(release)))
    finally:
        explorer.stop()
        planner.stop()


def answered_live(live: Live, *items: str, **request: Any) -> dict[str, Any]:
    """A slate that needs a live query, and the second time its cached answer."""
    before = live.answered("planner"), live.answered("remembered")
    slate = live.slate(*items, **request)
    assert len(live.novel(slate)) == 2 and "planner" not in slate["degraded"]
    assert (live.answered("planner"), live.answered("remembered")) == (before[0] + 1, before[1])
    again = live.slate(*items, **request)
    assert live.novel(again) == live.novel(slate)
    assert (live.answered("planner"), live.answered("remembered")) == (before[0] + 1, before[1] + 1)
    return slate


def test_for_a_single_interest(live):
    slate = answered_live(live, "i5.0", "i5.1")
    assert "c5" not in {cluster for cluster, _ in live.novel(slate)}
    because = {tuple(one["because"]) for one in slate["items"] if one["reason"] == "planner"}
    assert because <= {(live.catalogue.description["c5"],)}


def test_for_a_pair_outside_a_partial_table(live):
    assert not np.isfinite(live.catalogue.log_probs([("c0", "c3")])).any()
    slate = answered_live(live, "i0.0", "i3.0")
    assert not {"c0", "c3"} & {cluster for cluster, _ in live.novel(slate)}


def test_in_no_other_case(live):
    before = live.answered("planner")
    assert {reason for _, reason in live.novel(live.slate("i14.0", "i15.0"))} <= {"table", "popular", "exploration"}
    live.slate("i6.0", novel=0)
    live.slate()
    everything = tuple(f"i{cluster}.0" for cluster in range(WORLD.clusters))
    live.slate(*everything)
    assert live.answered("planner") == before


def test_a_silent_planner_is_stepped_around_in_time_and_its_late_answer_remembered(live):
    live.planner.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        slate = live.slate("i7.0", deadline_ms=500)
        assert time.monotonic() - began < 2
        assert "planner" in slate["degraded"]
        assert {reason for _, reason in live.novel(slate)} <= {"popular", "exploration"}
    finally:
        live.planner.signal(signal.SIGCONT)
    end = time.monotonic() + 20
    while "planner" in (slate := live.slate("i7.0"))["degraded"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert {reason for _, reason in live.novel(slate)} <= {"planner", "popular", "exploration"}
