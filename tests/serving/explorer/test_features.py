"""Stored histories as decisions can be made on them, whoever wrote the row."""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path

import pytest
import redis

from newfound.schema import ENGAGEMENTS, ITEM_IDS, POSITIVES, TIMES
from serving.explorer.features import WARM, Features, history_of
from serving.local.processes import Service, free_port
from serving.metrics import UNREADABLE_HISTORIES
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table


def columns(
    engagements: list[float], positives: int = 3, times: tuple[int, ...] = (1, 2, 3)
) -> dict[str, list[object]]:
    return {
        ITEM_IDS: ["a", "b", "c"],
        ENGAGEMENTS: list(engagements),
        POSITIVES: [True] * positives,
        TIMES: list(times),
    }


def test_a_sound_row_is_taken_as_it_is():
    before = UNREADABLE_HISTORIES._value.get()
    history = history_of(columns([0.0, 0.5, 1.0]), ["l1"], "digest")
    assert (history.item_ids, history.engagements, history.newest) == (["a", "b", "c"], [0.0, 0.5, 1.0], 3)
    assert history_of(columns([], 0, ()) | {ITEM_IDS: []}).newest is None
    assert UNREADABLE_HISTORIES._value.get() == before


@pytest.mark.parametrize(
    ("engagements", "positives", "items", "kept"),
    [
        ([0.5, math.nan, 1.0], 3, ["a", "c"], [0.5, 1.0]),
        ([-1e30, 0.5, math.inf], 3, ["a", "b", "c"], [0.0, 0.5, 1.0]),
        ([0.5, 0.5], 3, ["a", "b"], [0.5, 0.5]),
        ([0.5, 0.5, 0.5], 1, ["a"], [0.5]),
    ],
)
def test_a_row_of_another_writer_is_read_as_far_as_it_goes_and_counted(engagements, positives, items, kept):
    before = UNREADABLE_HISTORIES._value.get()
    history = history_of(columns(engagements, positives))
    assert (list(history.item_ids), list(history.engagements)) == (items, kept)
    assert len(history.positives) == len(items) and UNREADABLE_HISTORIES._value.get() == before + 1


@pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="Redis is not installed (apt-get install redis-server)"
)
def test_the_first_requests_find_connections_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    server = Service("redis", command, tmp_path, ("127.0.0.1", port)).start().wait()
    try:
        rows = histories(World(), 2, 20)
        store.write_sources(tmp_path / "features", history_table(rows), [])
        store.fill(tmp_path / "features", f"127.0.0.1:{port}")
        for name, value in store.environment(tmp_path / "features", f"127.0.0.1:{port}").items():
            monkeypatch.setenv(name, value)
        features, asked = Features(store.ROOT / "feature_repo", 200), redis.Redis(port=port)

        async def opened() -> tuple[int, int]:
            await features.warm()
            warm = asked.info("stats")["total_connections_received"]
            found = await asyncio.gather(*(features.read("u0") for _ in range(WARM)))
            assert [one and list(one.item_ids) for one in found] == [rows[0]["item_ids"]] * WARM
            return warm, asked.info("stats")["total_connections_received"]

        warm, after = asyncio.run(opened())
        assert warm > WARM and after == warm
    finally:
        server.stop()
