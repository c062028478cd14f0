"""Events of generated users: walks over interests, the items met there, ratings and times.

Now and then an event opens an interest that the person never had, drawn by popularity or from the branch of the
interest that was on; every other event stays where the last one was, or returns to an earlier event's interest.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from newfound.datasets.generated.calibration import LEVELS, POSITIONS, Calibration
from newfound.datasets.generated.world import World
from newfound.types import Ints

BLOCK: Final = 4096
"""Users that are made at a time."""
START: Final = 1_600_000_000
"""Time of the first event, in seconds."""
TRIES: Final = 8
PILOT: Final = 200_000
"""Events by which a world is fitted, about, in each of `ROUNDS`."""
ROUNDS: Final = 6
SHARPEST: Final = 4.0
EVENT: Final = np.dtype([("time", "<i8"), ("user", "<i4"), ("item", "<i4"), ("rating", "<i2")])


def fit(world: World) -> None:
    """Fits what is drawn with to what shall come out: that nothing is drawn twice flattens popularity, and returns
    stay by chance as well."""
    head = world.popularity >= np.quantile(world.popularity, 0.9)
    share = float(world.popularity[head].sum())
    blocks = range(min(-(-PILOT // max(1, int(world.lengths[:BLOCK].sum()))), -(-world.size.users // BLOCK)))
    for _ in range(ROUNDS):
        events = np.concatenate([events_of(world, block) for block in blocks])
        staying, kinship = _measures(world, events)
        if 0 < (found := float(head[events["item"]].mean())) < 1 and share < 1:
            world.sharpness = min(world.sharpness * float(np.log(found) / np.log(share)), SHARPEST)
        world.staying = float(np.clip(world.staying + world.shape.staying - staying, 0, 1))
        world.kinship = float(np.clip(world.kinship + world.shape.kinship - kinship, 0, 1))
        world.weigh()


def events_of(world: World, block: int) -> Any:
    """The events of a block of users, a structured array of `EVENT`, by user and within a user in order."""
    first = block * BLOCK
    lengths = world.lengths[first : first + BLOCK]
    rng = np.random.default_rng([world.size.seed, 1, block])
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    interest = _walks(world, rng, row, position)
    item = _items(world, rng, row, interest)
    found = np.empty(len(row), dtype=EVENT)
    found["user"], found["item"] = first + row, item
    found["rating"] = _ratings(world, rng, row, item)
    found["time"] = _times(world.shape, rng, row, position, len(lengths))
    return found[found["item"] >= 0]


def _walks(world: World, rng: np.random.Generator, row: Ints, position: Ints) -> Ints:
    """The interest of every event [E]."""
    chance = np.interp(np.log1p(position), np.log1p(POSITIONS), world.shape.opening)
    opens = (rng.random(len(row)) < chance) | (position == 0)
    here = np.arange(len(row))
    # Every other event points to an earlier one of its user, whose interest it takes.
    stays = rng.random(len(row)) < world.staying
    back = np.where(stays, 1, position - (rng.random(len(row)) * position).astype(np.int64))
    points = _roots(np.where(opens, here, here - back))
    # What was on when an interest was opened, by its own opening; nothing in a user's first event.
    before = np.where(position[opens] > 0, (np.cumsum(opens) - 1)[points[here[opens] - 1]], -1)
    interest = np.full(len(row), -1)
    interest[opens] = _openings(world, rng, row[opens], before)
    failed = opens & (interest < 0)
    points[failed] = here[failed] - 1
    found: Ints = interest[_roots(points)]
    return found


def _roots(points: Ints) -> Ints:
    """The event at which pointers to earlier events end, for every event [E]."""
    while (points[points] != points).any():
        points = points[points]
    return points


def _openings(world: World, rng: np.random.Generator, row: Ints, before: Ints) -> Ints:
    """A new interest for each opening [O], ordered by user; -1 where none was found.

    The n-th openings of all users are drawn together.

    Args:
        row: [O], users.
        before: [O], the earlier opening of the interest that was on then; -1 without one.
    """
    users, clusters = int(row.max()) + 1, world.size.clusters
    nth = np.arange(len(row)) - np.searchsorted(row, np.arange(users))[row]
    had = np.zeros((users, clusters), dtype=bool)
    found = np.full(len(row), -1)
    upto = np.cumsum(world.mass)
    for turn in np.split(np.argsort(nth, kind="stable"), np.cumsum(np.bincount(nth))[:-1]):
        waiting = turn
        for _ in range(TRIES):
            drawn = np.searchsorted(upto, rng.random(len(waiting)) * upto[-1]).clip(max=clusters - 1)
            last = np.where(before[waiting] >= 0, found[before[waiting]], -1)
            kin = (rng.random(len(waiting)) < world.kinship) & (last >= 0)
            drawn[kin] = _branch(world, rng, last[kin])
            fresh = ~had[row[waiting], drawn]
            found[waiting[fresh]] = drawn[fresh]
            waiting = waiting[~fresh]
        done = turn[found[turn] >= 0]
        had[row[done], found[done]] = True
    return found


def _branch(world: World, rng: np.random.Generator, interest: Ints) -> Ints:
    """An interest of the same topic for each."""
    members = np.concatenate(world.branches)
    sizes = np.array([len(branch) for branch in world.branches])
    topic = world.topic[interest]
    picked: Ints = members[(np.cumsum(sizes) - sizes)[topic] + (rng.random(len(topic)) * sizes[topic]).astype(np.int64)]
    return picked


def _items(world: World, rng: np.random.Generator, row: Ints, interest: Ints) -> Ints:
    """An item of its interest for every event [E], by popularity; repeats become others, in the end any; -1 if none."""
    last = world.size.items - 1
    drawn = np.searchsorted(world.upto, world.starts[interest] + rng.random(len(row)) * world.mass[interest])
    drawn = drawn.clip(max=last)
    again = _repeats(row, drawn, world.size.items)
    for attempt in range(3 * TRIES):
        lot, own = rng.random(len(again)), interest[again]
        if attempt < TRIES:
            lot = world.starts[own] + lot * world.mass[own]
        elif attempt < 2 * TRIES:
            lot *= world.upto[-1]
        else:
            lot = world.upto[(lot * world.size.items).astype(np.int64)]
        drawn[again] = np.searchsorted(world.upto, lot).clip(max=last)
        if not len(again := _repeats(row, drawn, world.size.items)):
            break
    drawn[again] = -1
    found: Ints = drawn
    return found


def _repeats(row: Ints, item: Ints, items: int) -> Ints:
    """Events whose user has the same item earlier."""
    key = row * items + item
    order = np.argsort(key, kind="stable")
    found: Ints = order[1:][np.diff(key[order]) == 0]
    return found


def _ratings(world: World, rng: np.random.Generator, row: Ints, item: Ints) -> Ints:
    """The number of the rating of every event [E]."""
    shape = world.shape
    own = rng.standard_normal(int(row.max()) + 1)
    rest = max(0.0, 1 - shape.quality - shape.mildness)
    felt = shape.quality**0.5 * world.quality[item] + shape.mildness**0.5 * own[row]
    felt += rest**0.5 * rng.standard_normal(len(row))
    found: Ints = np.searchsorted(world.thresholds, felt)
    return found


def _times(shape: Calibration, rng: np.random.Generator, row: Ints, position: Ints, users: int) -> Ints:
    """Seconds since the epoch, or positions where the shape has no times."""
    if not shape.gaps:
        return position
    logs = np.interp(rng.random(len(row)), LEVELS, np.log1p(shape.gaps))
    gaps = np.where(position == 0, 0.0, np.floor(np.expm1(logs)))
    total = np.bincount(row, gaps, minlength=users)
    gaps *= np.minimum(1.0, shape.span / np.maximum(total, 1.0))[row]
    after = np.cumsum(gaps)
    after -= after[position == 0][row]
    start = rng.random(users) * np.maximum(shape.span - total, 0.0)
    found: Ints = (START + start[row] + after).astype(np.int64)
    return found


def _measures(world: World, events: Any) -> tuple[float, float]:
    """Staying and kinship of some users' events, as `calibration.measure` has them."""
    user, interest = events["user"].astype(np.int64), world.interest[events["item"]]
    later = np.diff(user, prepend=-1) == 0
    _, first = np.unique(user * world.size.clusters + interest, return_index=True)
    new = np.zeros(len(events), dtype=bool)
    new[first] = True
    before = np.roll(interest, 1)
    staying = (interest == before)[later].sum() / max((later & ~new).sum(), 1)
    opened = later & new
    kin = (world.topic[interest] == world.topic[before])[opened].sum() / max(opened.sum(), 1)
    chance = ((np.bincount(world.topic[interest]) / len(events)) ** 2).sum()
    return float(staying), max(0.0, float((kin - chance) / max(1 - chance, 1e-9)))
