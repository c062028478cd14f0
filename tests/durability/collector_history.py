"""Histories in Jepsen's way: collectors, publishers, an erasure and skewed clocks at once, and a check of the outcome.

Two collectors with pushers, their clocks minutes apart, share one store and one Redis. Senders with clocks of their own
send to either and try again where they are not told that their events are durable. Meanwhile releases with other
clusters are published by two publishers, one is taken back, a user is erased, connections to the database are cut and
writes to Feast fail. When everybody is quiet:

- what was acknowledged is stored, once, but for what the erased user did before;
- the erased user is in no table, and in Redis only with what came after;
- Redis holds for every user the fold of the store, under the clusters of the release that serves;
- whoever read `current` saw releases that were published, one after the other, and no one twice but by the rollback.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from feature_repo.store import FOLDER_VARIABLE, REPOSITORY, YAML_VARIABLE, apply, open_store, push, stored_users
from monitoring.collector.app import create_app
from monitoring.collector.pusher import Pusher
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.store.tables import feedback, recommendations
from monitoring.users.erase import Places, erase
from monitoring.users.interactions import interactions_of
from monitoring.users.ledger import Ledger
from newfound import schema
from newfound.clusters import Clusters
from newfound.events import BATCH
from newfound.release import store as releases
from tests.monitoring import servers as parts
from tests.release.gates import HELD

SECRET: Final = parts.SECRET.encode()
SKEWS: Final = (timedelta(minutes=-4), timedelta(minutes=4))  # of the collectors' clocks
USERS: Final = [f"u{number}" for number in range(12)]
ITEMS: Final = [f"i{number}" for number in range(9)]
ERASED: Final = "u3"
LENGTH: Final = 20
SLACK: Final = timedelta(seconds=300)


@dataclass
class History:
    """What everybody saw.

    Attributes:
        acknowledged: events by id, with user and moment as sent.
        published: ids of releases, in the order in which their publishers were done.
        seen: ids that readers of `current` saw, without repetitions in a row.
        rolled_back_to: the release that was gone back to.
        until: what the erased user did until then is gone.
        faults: what was done to the system, by kind.
    """

    acknowledged: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    rolled_back_to: str = ""
    until: datetime = datetime.min.replace(tzinfo=UTC)
    faults: dict[str, int] = field(default_factory=dict)

    def count(self, fault: str) -> None:
        """One more of a kind."""
        self.faults[fault] = self.faults.get(fault, 0) + 1


def run(folder: Path, url: str, redis: int, *, batches: int, seed: int) -> tuple[History, dict[str, int]]:
    """Lets everybody work, waits until all is quiet, and checks.

    Args:
        folder: an empty one, for releases, features and the ledger.
        url: an empty store.
        redis: port of an empty Redis.
        batches: how many each of four senders sends.
        seed: of everybody's choices.

    Returns:
        The history, and what was checked: events, users, `lost`, `twice`, `returned` (what an erased user has that
        should be gone), `stale` (users whose rows in Redis are not the fold of the store).
    """
    history = History()
    root = str(folder / "releases")
    versions = [_clusters(folder / f"clusters-{number}", number) for number in range(6)]
    _publish(root, versions[0], history)
    with _feature_store(folder / "features", redis), ExitStack() as stack:
        opened = [stack.enter_context(_collector(url, root, skew, seed + n, history)) for n, skew in enumerate(SKEWS)]
        clients, stores = [client for client, _ in opened], [store for _, store in opened]
        stop = threading.Event()
        senders = [threading.Thread(target=_send, args=(clients, batches, seed * 100 + n, history)) for n in range(4)]
        middle = batches // 2 * 4
        others = [
            threading.Thread(target=_cut_connections, args=(stores[0], stop, random.Random(seed), history)),
            threading.Thread(target=_read_current, args=(root, stop, history)),
            threading.Thread(target=_publish_some, args=(root, versions[1:], stop, history)),
            threading.Thread(target=_erase, args=(stores[1], folder, middle, history)),
        ]
        for thread in (*senders, *others):
            thread.start()
        for thread in senders:
            thread.join()
        others[-1].join()
        stop.set()
        for thread in others:
            thread.join()
        for client in clients:
            # A change of clusters writes everybody anew, and every fourth write fails and costs a second.
            parts.wait_until(lambda c=client: " 0.0" in _lag(c), 600, "the pushers' end")
        return history, _check(stores[0], root, history)


# --- who works ---------------------------------------------------------------------------------------------------


@contextmanager
def _collector(url: str, root: str, skew: timedelta, seed: int, history: History) -> Iterator[tuple[TestClient, Store]]:
    store = Store(url, SECRET, statement_s=10)
    config = MonitoringConfig(commit_seconds=10, push_users=5)
    feast, rng = open_store(), random.Random(seed)

    def clock() -> datetime:
        return datetime.now(UTC) + skew

    def write(view: str, rows: Mapping[str, Any]) -> None:
        if rng.random() < 0.1:
            history.count("failed writes to Feast")
            raise ConnectionError("Redis is away")
        push(feast, view, rows)
        if rng.random() < 0.05:
            history.count("lost answers of Feast")
            raise ConnectionError("Redis has it, and could not say so")

    pusher = Pusher(store, config, write, length=LENGTH, root=root, clock=lambda: clock().timestamp(), look_s=0.5)
    with TestClient(create_app(store, config, SECRET, pusher=pusher, clock=clock)) as client:
        yield client, store


def _send(clients: list[TestClient], batches: int, seed: int, history: History) -> None:
    """A sender with a clock of its own, a spool that sends late, and the habit of repeating itself."""
    rng = random.Random(seed)
    skew = timedelta(seconds=rng.uniform(-200, 200))
    for number in range(batches):
        events: list[Any] = []
        for place in range(rng.randrange(1, 8)):
            at = datetime.now(UTC) + skew - timedelta(seconds=rng.choice([0, 0, 0, rng.uniform(0, 7200)]))
            name, user = f"{seed}-{number}-{place}", rng.choice(USERS)
            if rng.random() < 0.2:
                events.append(parts.recommendation(name, user_id=user, at=at))
            else:
                kind = rng.choice(["liked", "dismissed", "clicked", "shown"])
                events.append(parts.feedback(name, user_id=user, at=at, item=rng.choice(ITEMS), kind=kind))
        for _ in range(1 + (rng.random() < 0.2)):
            _deliver(clients, parts.batch(events), rng)
        history.acknowledged.update({event.id: (event.user_id, event.at) for event in events})


def _deliver(clients: list[TestClient], batch: Any, rng: random.Random) -> None:
    for _ in range(600):
        answer = rng.choice(clients).post("/v1/events", json=batch, headers={"content-type": BATCH})
        if answer.status_code == 200:
            return
        assert answer.status_code == 503, answer.text
        time.sleep(0.05)
    raise AssertionError("no collector took the events")


def _cut_connections(store: Store, stop: threading.Event, rng: random.Random, history: History) -> None:
    """Ends a random connection to PostgreSQL again and again, as a network or an operator would."""
    if store.is_sqlite:
        return
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
    )
    while not stop.wait(rng.uniform(0.1, 0.5)):
        with suppress(Exception), store.engine.connect() as connection:
            history.count("cut connections") if connection.scalar(cut) else None


def _publish_some(root: str, versions: list[Path], stop: threading.Event, history: History) -> None:
    """Two publishers, one after the other's back, then a rollback to the first one's release."""
    half = len(versions) // 2
    publishers = [
        threading.Thread(target=lambda some=some: [_publish(root, one, history) for one in some])
        for some in (versions[:half], versions[half:])
    ]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    stop.wait(0.3)
    history.rolled_back_to = history.published[0]
    releases.rollback(root, history.rolled_back_to)


_publishing = threading.Lock()


def _publish(root: str, clusters: Path, history: History) -> None:
    with _publishing:  # releases made in the same second by one process share nothing but their time
        lineage = {"number": len(history.published)}
        made = releases.publish({"clusters": clusters}, root, lineage=lineage, measures={}, fits={}, gates=HELD)
        history.published.append(made.id)
    time.sleep(0.2)


def _read_current(root: str, stop: threading.Event, history: History) -> None:
    while not stop.wait(0.01):
        now = releases.current(root)
        if now is not None and history.seen[-1:] != [now]:
            history.seen.append(now)


def _erase(store: Store, folder: Path, after: int, history: History) -> None:
    """Erases a user half-way, by a machine whose clock is behind."""
    while len(history.acknowledged) < after:
        time.sleep(0.01)
    behind = datetime.now(UTC) - timedelta(minutes=2)
    places = Places(feast=open_store())
    for _ in range(100):
        try:
            receipt = erase(store, ERASED, behind, SLACK, Ledger(str(folder / "erasures")), places)
        except Exception:  # a connection was cut: whoever erases tries again, as told
            time.sleep(0.05)
            continue
        history.until = receipt.until
        if receipt.complete:
            return
    raise AssertionError("the user could not be erased")


# --- what is checked ---------------------------------------------------------------------------------------------


def _check(store: Store, root: str, history: History) -> dict[str, int]:
    with store.engine.connect() as connection:
        rows = [
            (row.id, row.user_id, row.at)
            for table in (feedback, recommendations)
            for row in connection.execute(select(table.c.id, table.c.user_id, table.c.at))
        ]
    stored, until = {name for name, _, _ in rows}, micros(history.until)
    # The erased user's own from after the erasure may be dropped too, where a clock was ahead.
    expected = {name for name, (user, _) in history.acknowledged.items() if user != ERASED}
    returned = [row for row in rows if row[1] == ERASED and row[2] <= until]
    now = releases.current(root)
    assert now == history.rolled_back_to and set(history.seen) <= set(history.published)
    order = [history.published.index(one) for one in history.seen]
    assert order[:-1] == sorted(set(order[:-1])), f"`current` went back without a rollback: {order}"
    clusters = Clusters.load(releases.load(root, now).path / "clusters")
    patience = time.monotonic() + 30  # pushers look for a release now and then
    while (stale := _stale(store, clusters)) and time.monotonic() < patience:
        time.sleep(0.2)
    online = set(stored_users(open_store()))
    assert online <= {user for _, user, _ in rows}, "Redis knows a user that the store does not"
    return {
        "events": len(history.acknowledged),
        "users": len(online),
        "lost": len(expected - stored),
        "twice": len(rows) - len(stored),
        "returned": len(returned),
        "stale": len(stale),
    }


def _stale(store: Store, clusters: Clusters) -> list[str]:
    """Users whose rows in Redis are not what the store makes of them now."""
    whole = {user: events for user, events in interactions_of(store, USERS, MonitoringConfig()).items() if events}
    feast, users = open_store(), sorted(whole)
    service = feast.get_feature_service("explorer")
    answer = feast.get_online_features(features=service, entity_rows=[{"user_id": u} for u in users]).to_dict()
    stale = []
    for place, user in enumerate(users):
        names = (schema.ITEM_IDS, schema.TIMES, schema.ENGAGEMENTS, schema.POSITIVES)
        last = whole[user][-LENGTH:]
        leaves = sorted({clusters.leaf_of[event[0]] for event in whole[user] if event[0] in clusters.leaf_of})
        rows = list(zip(*(answer[name][place] or () for name in names), strict=True))
        if rows != last or (answer[schema.SEEN_LEAVES][place], answer[schema.CLUSTERS_DIGEST][place]) != (
            leaves,
            clusters.digest,
        ):
            stale.append(user)
    return stale


# --- what it needs -----------------------------------------------------------------------------------------------


@contextmanager
def _feature_store(folder: Path, redis: int) -> Iterator[None]:
    folder.mkdir()
    before = dict(os.environ)
    os.environ |= {
        FOLDER_VARIABLE: str(folder),
        YAML_VARIABLE: str(REPOSITORY / "feature_store.production.yaml"),
        "NEWFOUND_REDIS": f"127.0.0.1:{redis}",
    }
    try:
        apply(open_store())
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _clusters(folder: Path, number: int) -> Path:
    """Three clusters of the items, others with every number."""
    import numpy as np

    names = [f"c{number}.{place}" for place in range(3)]
    rows = [
        {"node": name, "parent": None, "level": 1, "description": name, "size": 3, "traffic": 1 / 3} for name in names
    ]
    order = sorted(range(len(ITEMS)), key=lambda place: ((place + number) % 3, place))
    paths = [{"item_id": ITEMS[place], "path": [names[(place + number) % 3]]} for place in order]
    vectors = {"nodes": np.zeros((3, 2), "float32"), "items": np.zeros((len(ITEMS), 2), "float32")}
    clusters = Clusters(
        pa.Table.from_pylist(rows, schema=schema.TREE),
        pa.Table.from_pylist(paths, schema=schema.ITEM_PATHS),
        {"interface_level": 1, "format": 1},
        vectors,
    )
    clusters.save(folder)
    return folder


def _lag(client: TestClient) -> str:
    lines: Callable[[str], list[str]] = str.splitlines
    found = [line for line in lines(client.get("/metrics").text) if line.startswith("newfound_collector_history_lag")]
    return found[-1]
