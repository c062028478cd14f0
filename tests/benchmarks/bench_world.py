"""The simulated world alone, without any arm: many people for many days, who are shown random slates.

    python -m tests.benchmarks.bench_world --people 100000 --days 60

A day is arithmetic on whole arrays, one row a person; its time and memory are what a world of that size costs.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np

from newfound.simulation.world import World
from newfound.simulation.world_config import WorldConfig
from tests.benchmarks.record import machine, write_record

SLOTS = 8


def live(people: int, days: int, seed: int) -> dict[str, object]:
    """A world's first log and its days."""
    began = time.perf_counter()
    world = World(WorldConfig(people=people), seed)
    first = world.first_log()
    past = time.perf_counter() - began
    items = world.config.clusters * world.config.items
    looks = likes = visits = 0
    for day in range(days):
        slates = np.random.default_rng([seed, day]).integers(0, items, (people, SLOTS))
        present = world.present(day)
        reactions = world.react(day, slates, present)
        world.find_elsewhere(day)
        world.end_day(reactions, present)
        visits, looks, likes = visits + present.sum(), looks + reactions.seen.sum(), likes + reactions.liked.sum()
    whole = time.perf_counter() - began
    return {
        "people": people,
        "days": days,
        "interests": world.config.clusters,
        "items": items,
        "events_of_the_first_log": len(first[0]),
        "first_log_days": world.config.past,
        "first_log_seconds": round(past, 1),
        "seconds": round(whole, 1),
        "visits": int(visits),
        "looks": int(looks),
        "likes": int(likes),
        "peak_gigabytes": round(_peak_gigabytes(), 2),
    }


def _peak_gigabytes() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024 / 1e9


def main() -> None:
    """Lives, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--record", type=Path, default=Path("runs/bench/world.json"))
    options = parser.parse_args()
    write_record(options.record, live(options.people, options.days, seed=1) | machine())


if __name__ == "__main__":
    main()
