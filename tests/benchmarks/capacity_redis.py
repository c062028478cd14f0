"""What a user costs Redis: rows of real lengths, written through Feast as a run writes them, each key asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import redis

from newfound.config import DataConfig
from newfound.datasets.sources import open_source
from serving.local.processes import Service, free_port
from tests.benchmarks.bench_joint import INTERESTS
from tests.serving import store
from tests.serving.synthetic import history_table

TASTES: Final = 30  # interests that somebody has had
ASKED: Final = 4000  # keys whose memory is asked for one by one
SEED: Final = 7


def lengths(users: int) -> np.ndarray:
    """Events of so many users, drawn from those of MovieLens-100K's 943."""
    events = pd.read_csv(open_source(DataConfig()).interactions.path, sep="\t")
    real = events.iloc[:, 0].value_counts().to_numpy()
    return np.random.default_rng(SEED).choice(real, users)


def measure_redis(users: int, folder: Path) -> dict[str, float]:
    """Fills a Redis server with users and asks it; bytes of a user are those that the server's memory grew by."""
    folder.mkdir(parents=True)
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    service = Service("redis", command, folder, ("127.0.0.1", port)).start()
    try:
        service.wait(20)
        client = redis.Redis(port=port)
        before = int(client.info("memory")["used_memory"])
        events = _write(users, folder / "features")
        began = time.monotonic()
        store.fill(folder / "features", f"127.0.0.1:{port}")
        filled = time.monotonic() - began
        after, keys = int(client.info("memory")["used_memory"]), int(client.dbsize())
        if keys != users:
            raise RuntimeError(f"{keys} keys of {users} users")
        each, base = _by_events(client, events)
        return {
            "redis.users": users,
            "redis.events_a_user": round(float(np.mean(list(events.values()))), 1),
            "redis.fill_s": round(filled, 1),
            "redis.bytes_a_user": round((after - before) / users, 1),
            "redis.bytes_a_user_beside_events": round(base, 1),
            "redis.bytes_an_event": round(each, 2),
        }
    finally:
        service.stop()


def _write(users: int, out: Path) -> dict[str, int]:
    """The source files of both views; events by user."""
    rng = np.random.default_rng(SEED)
    rows, interests = [], []
    counts = {f"u{user:08d}": int(count) for user, count in enumerate(lengths(users))}
    for user, count in counts.items():
        tastes = rng.integers(0, INTERESTS, min(TASTES, count))
        rows.append(
            {
                "user_id": user,
                "event_timestamp": 1_700_000_000_000_000,
                "item_ids": [f"i{item:07d}" for item in rng.integers(0, 5_000_000, count).tolist()],
                "times": (1_700_000_000_000 + np.sort(rng.integers(0, 1 << 34, count))).tolist(),
                "engagements": rng.choice([0.2, 0.4, 0.6, 0.8, 1.0], count).tolist(),
                "positives": (rng.random(count) < 0.5).tolist(),
            }
        )
        leaves = sorted({f"l{taste}.{rng.integers(2)}" for taste in tastes.tolist()})
        stamp = pd.Timestamp(1_700_000_000, unit="s", tz="UTC")
        interests.append(
            {"user_id": user, "event_timestamp": stamp, "seen_leaves": leaves, "clusters_digest": "0" * 64}
        )
    store.write_sources(out, history_table(rows), interests)
    return counts


def _by_events(client: redis.Redis, events: dict[str, int]) -> tuple[float, float]:
    """Least squares of a key's memory by its user's events: bytes an event, and bytes beside them."""
    sizes, counts = [], []
    for key in client.scan_iter(count=1000):
        if len(sizes) == ASKED:
            break
        at = key.find(b"u0")
        counts.append(events[key[at : at + 9].decode()])
        sizes.append(int(client.memory_usage(key, samples=0)))
    slope, base = np.polyfit(counts, sizes, 1)
    return float(slope), float(base)
