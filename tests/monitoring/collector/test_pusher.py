"""Feedback reaches Feast whole, in order, and soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from feature_repo.store import apply, materialise, open_store, push, stored_users
from monitoring.collector.app import create_app
from monitoring.collector.pusher import Pusher
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.tables import feedback
from monitoring.users.erase import Places, erase, replay
from monitoring.users.ledger import Ledger
from newfound import schema
from newfound.clusters import Clusters
from newfound.events import STRUCTURED, envelope
from newfound.release import store as release
from newfound.release.new_items import NewItem, NewItems, add_new_items
from tests.monitoring import servers as parts
from tests.release.gates import HELD

CONFIG = MonitoringConfig()
SECRET = parts.SECRET.encode()
START = datetime(2026, 3, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def ms(minutes: float) -> int:
    return int(at(minutes).timestamp() * 1000)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, SECRET)
    yield store
    store.close()


class _Memory:
    """Stands where Feast is, for what Feast has no part in."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []
        self.fails = 0

    def __call__(self, view: str, rows: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        self.rows.append((view, rows))


def test_the_pusher_goes_on_where_it_stood(store: Store) -> None:
    memory = _Memory()
    store.write([parts.feedback(n, user_id=f"u{n % 3}", at=at(n), item=str(n)) for n in range(9)])
    memory.fails = 1
    pusher = Pusher(store, CONFIG, memory, length=2)
    with pytest.raises(ConnectionError):
        pusher.catch_up()
    assert Pusher(store, CONFIG, memory, length=2).catch_up() == 3
    view, rows = memory.rows[0]
    assert view == "user_history" and rows[schema.USER] == ["u0", "u1", "u2"]
    assert rows[schema.ITEM_IDS] == [["3", "6"], ["4", "7"], ["5", "8"]]  # the last two of each
    assert Pusher(store, CONFIG, memory, length=2).catch_up() == 0


def test_a_replica_whose_clock_is_behind_stamps_later_all_the_same(store: Store) -> None:
    memory = _Memory()
    ahead = Pusher(store, CONFIG, memory, length=2, clock=lambda: at(10).timestamp())
    behind = Pusher(store, CONFIG, memory, length=2, clock=lambda: at(0).timestamp())
    stamps = []
    for number, pusher in enumerate((ahead, behind, behind, ahead)):
        store.write([parts.feedback(number, at=at(number), item=str(number))])
        assert pusher.catch_up() == 1
        stamps.append(memory.rows[-1][1][schema.EVENT_TIME][0])
    assert stamps == sorted(set(stamps)), "Redis drops a row that is stamped no later than its own"
    assert stamps[0] == at(10)


def test_an_erased_user_does_not_come_back_as_an_empty_row(store: Store) -> None:
    memory = _Memory()
    store.write([parts.feedback(1, at=at(1)), parts.feedback(2, at=at(2), user_id="43")])

    pusher = Pusher(store, CONFIG, memory, length=2)
    rows = next(store.after(feedback, 0, 10))
    store.erase("42", at(5))
    with store.sole_pusher() as lock:
        pusher._push_users(sorted({row.user_id for row in rows}), lock)
    assert [row[schema.USER] for _, row in memory.rows] == [["43"]]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_replicas_take_turns_and_wait_for_each_other(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    one, two = Store(url, SECRET), Store(url, SECRET)
    memory = _Memory()
    waiting = Pusher(two, CONFIG, memory, length=2)
    with one.sole_pusher() as mine:
        assert mine.held
        two.write([parts.feedback(1, at=at(1))])
        assert waiting.catch_up() is None and not memory.rows
        waiting.start()  # as the collector does; it tries again by itself
        parts.wait_until(lambda: waiting.lag() > 0.3, 10, "the pusher to wait")
        assert not memory.rows
    parts.wait_until(lambda: memory.rows and waiting.lag() == 0, 4, "the pusher's turn")
    waiting.stop()
    with one.sole_pusher() as mine:  # and whoever erases waits for a write that is under way
        turns: list[str] = []

        def erases() -> None:
            with two.sole_pusher(wait_s=10) as other:
                turns.append(f"erases: {other.held}")

        thread = threading.Thread(target=erases)
        thread.start()
        thread.join(0.2)
        turns.append(f"writes: {mine.held}")
    thread.join(10)
    assert turns == ["writes: True", "erases: True"]
    one.close()
    two.close()


def test_other_clusters_write_every_row_anew_even_if_they_came_while_nobody_ran(store: Store, tmp_path: Path) -> None:
    root, clusters = _publish(tmp_path)
    memory = _Memory()
    store.write([parts.feedback(n, user_id=f"u{n}", at=at(n), item="50") for n in range(3)])
    assert Pusher(store, CONFIG, memory, length=2, root=root).catch_up() == 3
    assert Pusher(store, CONFIG, memory, length=2, root=root).catch_up() == 0
    other, digest = _publish(tmp_path / "other", leaf="b2")
    assert digest.digest != clusters.digest
    assert Pusher(store, CONFIG, memory, length=2, root=other).catch_up() == 3
    assert memory.rows[-1][1]["clusters_digest"] == [digest.digest] * 3


def test_new_items_lead_to_their_leaves(store: Store, tmp_path: Path) -> None:
    root, clusters = _publish(tmp_path)
    memory, current = _Memory(), release.current(root)
    pusher = Pusher(store, CONFIG, memory, length=2, root=root)
    store.write([parts.feedback(1, user_id="u1", at=at(1), item="late")])
    assert pusher.catch_up() == 1 and memory.rows[-1][1]["seen_leaves"] == [[]]
    leaf, ones = clusters.at_level(clusters.depth)[0], np.ones((2, 2), dtype=np.float32)
    assert current is not None
    placed = (
        NewItem(item="late", title="Late", leaf=leaf, row="0" * 64),
        NewItem(item="lost", title="Lost", leaf="of another tree", row="0" * 64),
    )
    add_new_items(root, NewItems(current, datetime.now(UTC), placed, ones, ones, ones))
    store.write([parts.feedback(n, user_id="u1", at=at(n), item=item) for n, item in ((2, "late"), (3, "lost"))])
    assert pusher.catch_up() == 1 and memory.rows[-1][1]["seen_leaves"] == [[leaf]]


def test_after_a_rollback_every_row_is_of_the_release_that_serves(store: Store, tmp_path: Path) -> None:
    """Two replicas, one of which slept through the newer release."""
    root, clusters = _publish(tmp_path)
    memory = _Memory()
    store.write([parts.feedback(n, user_id=f"u{n}", at=at(n), item="50") for n in range(3)])
    asleep = Pusher(store, CONFIG, memory, length=2, root=root)
    assert asleep.catch_up() == 3
    older = release.current(root)
    _clusters(tmp_path / "newer", leaf="b2")
    release.publish({"clusters": tmp_path / "newer"}, root, lineage={"n": 2}, measures={}, fits={}, gates=HELD)
    assert Pusher(store, CONFIG, memory, length=2, root=root).catch_up() == 3
    assert older is not None
    release.rollback(root, older)
    assert asleep.catch_up() == 3
    assert memory.rows[-1][1]["clusters_digest"] == [clusters.digest] * 3


def _features(folder: Path, monkeypatch: pytest.MonkeyPatch, redis: int | None) -> None:
    """Feature files of one old row, and the environment that names them."""
    folder.mkdir()
    row = {"user_id": "42", "event_timestamp": at(0)}
    history = {"item_ids": ["7"], "times": [ms(0)], "engagements": [1.0], "positives": [True]}
    pq.write_table(pa.Table.from_pylist([{**row, **history}], schema=schema.HISTORIES), folder / "user_history.parquet")
    interests = {"seen_leaves": ["old"], "clusters_digest": "old"}
    pq.write_table(pa.Table.from_pylist([{**row, **interests}]), folder / "user_interests.parquet")
    environment = {"NEWFOUND_FEATURES": str(folder)}
    if redis is not None:
        environment["NEWFOUND_REDIS"] = f"127.0.0.1:{redis}"
        environment["FEAST_FS_YAML_FILE_PATH"] = str(parts.ROOT / "feature_repo/feature_store.production.yaml")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def _apply() -> Any:
    store = open_store()
    apply(store)
    materialise(store)
    return store


def _clusters(folder: Path, leaf: str = "b1") -> Clusters:
    import numpy as np

    tree = [("a", None, 1, "a"), ("a1", "a", 2, "a1"), ("b", None, 1, "b"), (leaf, "b", 2, leaf)]
    rows = [
        {"node": node, "parent": parent, "level": level, "description": text, "size": 1, "traffic": 0.5}
        for node, parent, level, text in tree
    ]
    paths = [{"item_id": "50", "path": ["a", "a1"]}, {"item_id": "51", "path": ["b", leaf]}]
    vectors = {"nodes": np.zeros((4, 2), "float32"), "items": np.zeros((2, 2), "float32")}
    clusters = Clusters(
        pa.Table.from_pylist(rows, schema=schema.TREE),
        pa.Table.from_pylist(paths, schema=schema.ITEM_PATHS),
        {"interface_level": 1, "format": 1},
        vectors,
    )
    clusters.save(folder)
    return Clusters.load(folder)


def _publish(tmp_path: Path, leaf: str = "b1") -> tuple[str, Clusters]:
    clusters = _clusters(tmp_path / "clusters", leaf)
    root = str(tmp_path / "releases")
    release.publish({"clusters": tmp_path / "clusters"}, root, lineage={}, measures={}, fits={}, gates=HELD)
    return root, clusters


@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_the_next_request_reflects_feedback(
    online: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_port") if online == "redis" else None
    _features(tmp_path / "features", monkeypatch, redis)
    feast = _apply()
    root, clusters = _publish(tmp_path)
    past = Store(sqlite_url, SECRET)
    past.import_interactions([("42", [("7", ms(0), 1.0, True)])])

    def read() -> dict[str, Any]:
        answer = feast.get_online_features(
            features=feast.get_feature_service("explorer"), entity_rows=[{"user_id": "42"}]
        ).to_dict()
        return {name: values[0] for name, values in answer.items()}

    assert read()["item_ids"] == ["7"]
    pusher = Pusher(past, CONFIG, partial(push, open_store()), length=1000, root=root)
    with TestClient(create_app(past, CONFIG, SECRET, pusher=pusher)) as client:
        now = datetime.now(UTC)

        def send(number: int, item: str, when: datetime) -> None:
            event = parts.feedback(number, item=item, at=when)
            answer = client.post("/v1/events", json=envelope(event, "/t"), headers={"content-type": STRUCTURED})
            assert answer.status_code == 200, answer.text

        send(1, "51", now)
        parts.wait_until(lambda: read()["item_ids"] == ["7", "51"], 20, "the history in Feast")
        parts.wait_until(lambda: read()["seen_leaves"] == ["b1"], 20, "the interests in Feast")
        assert read()["clusters_digest"] == clusters.digest
        # Older than what is there, and later than it: it takes its place, and nothing newer is lost.
        send(2, "50", now - timedelta(hours=1))
        parts.wait_until(lambda: read()["item_ids"] == ["7", "50", "51"], 20, "the late event in Feast")
        parts.wait_until(lambda: read()["seen_leaves"] == ["a1", "b1"], 20, "the interests in Feast")
        row = read()
        assert row["times"] == [ms(0), *(int((now - timedelta(hours=h)).timestamp() * 1000) for h in (1, 0))]
        assert row["positives"] == [True] * 3 and row["engagements"] == [1.0] * 3
        assert "newfound_collector_history_lag_seconds 0.0" in client.get("/metrics").text
    store = Store(sqlite_url, SECRET)
    ledger, places = Ledger(str(tmp_path / "erasures")), Places(feast=feast)
    receipt = erase(store, "42", datetime.now(UTC), timedelta(0), ledger, places)
    erased = {outcome.place: outcome.removed for outcome in receipt.outcomes}
    assert erased["feast.online"] >= 1 and erased["store.feedback"] == 2
    assert read()["item_ids"] is None and read()["seen_leaves"] is None
    # Feast comes back from a backup, and so does the user, who has begun anew since: the ledger sees to both.
    stamp = receipt.until + timedelta(seconds=1)
    row = {"item_ids": ["7"], "times": [ms(0)], "engagements": [1.0], "positives": [True]}
    rows = {"user_id": ["42", "43"], "event_timestamp": [stamp] * 2, **{name: [one] * 2 for name, one in row.items()}}
    push(feast, "user_history", rows)
    assert set(stored_users(feast)) == {"42", "43"}
    store.write([parts.feedback("anew", item="50", at=stamp)])
    pusher = Pusher(store, CONFIG, partial(push, feast), length=1000, root=root)
    pusher.catch_up()
    assert replay(store, ledger, places)[-1].removed >= 1
    assert read()["item_ids"] is None and set(stored_users(feast)) == {"43"}
    assert pusher.catch_up() == 1, "what the user did since is written anew"
    assert read()["item_ids"] == ["50"]
    store.close()
