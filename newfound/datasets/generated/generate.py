"""Generated data sets of any size, in the shape of a real one: interactions, items and their interests.

Histories' lengths, items' popularity, times, ratings and titles come out as a `Calibration` has them. Users are made in
blocks, each from a generator of its own, so memory is bounded and the same arguments make the same files. Events with
times are sorted by time, as a log is, over files on disk; ordinals stay a user's events in order.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.datasets.generated.calibration import LEVELS, load_calibration
from newfound.datasets.generated.events import BLOCK, EVENT, START, events_of, fit
from newfound.datasets.generated.words import ASPECTS, COMMON, SYLLABLES, TOPICS
from newfound.datasets.generated.world import Size, World
from newfound.files import new_folder
from newfound.schema import CATEGORIES, CLUSTER, DESCRIPTION, ENGAGEMENT, ITEM, POSITIVE, TIME, TITLE, USER
from newfound.types import Ints

RECORD: Final = "generated.json"
ROWS: Final = 1 << 19
"""Events of a row group, about; memory goes by it and by the longest histories of a block."""


def generate(size: Size, calibration: str, out: Path) -> dict[str, int]:
    """Generates a data set as files that loader `files` reads.

    Args:
        size: how much.
        calibration: name of the measured set whose shape it takes.
        out: folder for interactions.parquet (user_id, item_id, timestamp, engagement, positive), items.parquet
            (item_id, title, categories), interests.parquet (item_id, cluster, description), which clusters can be made
            of (`clusters.source: file`), and generated.json; it appears whole, or not at all.

    Returns:
        Counts.

    Raises:
        ConfigError: the calibration is unknown.
    """
    shape = load_calibration(calibration)
    world = World(size, shape)
    fit(world)
    with new_folder(out, RECORD) as folder:
        _write_items(world, folder)
        rows = _write_events(world, folder / "interactions.parquet")
        record = {**asdict(size), "calibration": calibration}
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return {"interactions": rows, "users": size.users, "items": size.items, "clusters": size.clusters}


def _write_events(world: World, out: Path) -> int:
    """Writes all events in order; answers their number."""
    blocks = -(-world.size.users // BLOCK)
    made = (events_of(world, block) for block in range(blocks))
    rows = 0
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as work:
        parts = _by_time(made, Path(work), world) if world.shape.gaps else made
        with pq.ParquetWriter(out, _table(world, np.zeros(0, dtype=EVENT)).schema) as writer:
            for part in parts:
                writer.write_table(_table(world, part), row_group_size=ROWS)
                rows += len(part)
    return rows


def _by_time(made: Iterator[Any], work: Path, world: World) -> Iterator[Any]:
    """The same events by time, then user: spread over files by slices of time, and each of these sorted."""
    count = max(1, world.size.interactions // ROWS)
    for events in made:
        place = ((events["time"] - START) * count // max(int(world.shape.span), 1)).clip(0, count - 1)
        order = np.argsort(place, kind="stable")
        edges = np.searchsorted(place[order], np.arange(count + 1))
        for at in np.flatnonzero(np.diff(edges)).tolist():
            with (work / str(at)).open("ab") as file:
                events[order[edges[at] : edges[at + 1]]].tofile(file)
    for at in range(count):
        if (work / str(at)).exists():
            events = np.fromfile(work / str(at), dtype=EVENT)
            (work / str(at)).unlink()
            yield events[np.lexsort((events["user"], events["time"]))]


def _table(world: World, events: Any) -> pa.Table:
    values = np.array([value for value, _ in world.shape.ratings], dtype=np.float32)
    engagement = values[events["rating"]]
    time = pa.array(events["time"].astype(np.int64))
    if world.shape.gaps:
        time = time.cast(pa.timestamp("s")).cast(pa.timestamp("us", "UTC"))
    columns = {
        USER: _ids("u", events["user"]),
        ITEM: _ids("i", world.ids[events["item"]]),
        TIME: time,
        ENGAGEMENT: pa.array(engagement),
        POSITIVE: pa.array(engagement >= np.float32(world.shape.positive_at)),
    }
    return pa.table(columns)


def _ids(letter: str, numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(numbers.astype(np.int64)).cast(pa.string()), "")


def _write_items(world: World, folder: Path) -> None:
    """Writes items.parquet and interests.parquet."""
    topics, aspects = list(TOPICS), list(ASPECTS)
    branches = len(world.branches)
    names = [f"{topics[c % branches]} {aspects[c // branches]}" for c in range(world.size.clusters)]
    clusters, branch = pa.array([f"g{c}" for c in range(world.size.clusters)]), pa.array(topics)
    writers: list[pq.ParquetWriter] = []
    try:
        for block in range(-(-world.size.items // BLOCK)):
            place = slice(block * BLOCK, (block + 1) * BLOCK)
            interest, ids = world.interest[place], _ids("i", world.ids[place])
            kinds = pa.array(interest)
            category = pa.ListArray.from_arrays(np.arange(len(ids) + 1), branch.take(pa.array(world.topic[interest])))
            tables = {
                "items": pa.table({ITEM: ids, TITLE: _titles(world, block, interest), CATEGORIES: category}),
                "interests": pa.table(
                    {ITEM: ids, CLUSTER: clusters.take(kinds), DESCRIPTION: pa.array(names).take(kinds)}
                ),
            }
            writers = writers or [pq.ParquetWriter(folder / f"{name}.parquet", t.schema) for name, t in tables.items()]
            for writer, table in zip(writers, tables.values(), strict=True):
                writer.write_table(table)
    finally:
        for writer in writers:
            writer.close()


def _titles(world: World, block: int, interest: Ints) -> pa.Array:
    """Titles of a block of items: a made-up name, and words of the interest or of everybody."""
    rng = np.random.default_rng([world.size.seed, 2, block])
    branches = len(world.branches)
    own = [list(TOPICS.values())[c % branches].split() for c in range(world.size.clusters)]
    aspect = [list(ASPECTS.values())[c // branches].split() for c in range(world.size.clusters)]
    mine, its, common = np.array(own), np.array(aspect), np.array(COMMON.split())
    n = len(interest)
    counts = np.interp(rng.random(n), LEVELS, world.shape.words).round().clip(1, 64).astype(np.int64)
    telling = world.shape.telling * counts.mean() / max(counts.mean() - 1, 1)  # the name tells nothing
    syllables = np.array(SYLLABLES.split())
    parts = [pa.array(syllables[rng.integers(0, len(syllables), n)]) for _ in range(3)]
    slots = [pc.utf8_capitalize(pc.binary_join_element_wise(*parts, ""))]
    for place in range(1, int(counts.max())):
        words = common[rng.integers(0, len(common), n)]
        tells, of_aspect = rng.random(n) < telling, rng.random(n) < 0.5
        words = np.where(tells, mine[interest, _favourites(rng, mine.shape[1], n)], words)
        words = np.where(tells & of_aspect, its[interest, _favourites(rng, its.shape[1], n)], words)
        slots.append(pc.if_else(pa.array(counts > place), pa.array(words.tolist()), None))
    return pc.binary_join_element_wise(*slots, " ", null_handling="skip")


def _favourites(rng: np.random.Generator, words: int, n: int) -> Ints:
    """Numbers of n of the words, the first ones most often."""
    found: Ints = np.floor(words * rng.random(n) ** 2).astype(np.int64)
    return found
