"""Stored histories as decisions can be made on them, whoever wrote the row."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from google.protobuf.message import DecodeError

from newfound.recommend.catalogue import UserHistory
from newfound.schema import ENGAGEMENTS, ITEM_IDS, POSITIVES, TIMES
from serving.explorer.features import Features, history_of
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


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Features, redis.Redis, list[list[str]]]]:
    """Stored histories in a real Redis: their reader, a client, and what users u0 and u1 consumed."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    server = Service("redis", command, tmp_path, ("127.0.0.1", port)).start().wait()
    try:
        rows = histories(World(), 2, 20)
        store.write_sources(tmp_path / "features", history_table(rows), [])
        store.fill(tmp_path / "features", f"127.0.0.1:{port}")
        for name, value in store.environment(tmp_path / "features", f"127.0.0.1:{port}").items():
            monkeypatch.setenv(name, value)
        consumed = [[str(item) for item in row["item_ids"]] for row in rows]  # type: ignore[attr-defined]
        yield Features(store.ROOT / "feature_repo", 200), redis.Redis(port=port), consumed
    finally:
        server.stop()


def items_of(history: UserHistory | BaseException | None) -> list[str] | None:
    assert not isinstance(history, BaseException)
    return None if history is None else list(history.item_ids)


def test_users_of_one_moment_are_read_together_and_a_broken_row_costs_its_own_user_alone(
    online: tuple[Features, redis.Redis, list[list[str]]],
) -> None:
    features, client, consumed = online

    async def together(*users: str) -> list[UserHistory | BaseException | None]:
        return await asyncio.gather(*map(features.read, users), return_exceptions=True)

    def connections() -> int:
        return int(client.info("stats")["total_connections_received"])  # type: ignore[index]

    async def story() -> None:
        await features.warm()
        before = connections()
        sound = await together("u0", "u1", "nobody", "u0")
        assert list(map(items_of, sound)) == [consumed[0], consumed[1], None, consumed[0]]
        assert connections() == before
        (key,) = [name for name in client.scan_iter() if b"u1" in name]
        for field in client.hkeys(key):  # type: ignore[union-attr]
            client.hset(key, field, b"\xff\xff no message")
        broken = await together("u0", "u1", "nobody")
        assert [items_of(broken[0]), items_of(broken[2])] == [consumed[0], None]
        assert isinstance(broken[1], DecodeError)

    asyncio.run(story())
