"""An arm's own log, and everybody's state by it: all that it may see of a world, and no hidden taste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from newfound.simulation.linear_ranker import DECAY
from newfound.types import Bools, Floats, Ints

RECENT = 5  # interests that contexts are made of
HALF_LIFE = 2.0  # positions among them


@dataclass(frozen=True)
class Choice:
    """Positive first events with an interest, in order: everything [T].

    Attributes:
        users: whose.
        items: chosen.
        days: when.
        recent: [T, RECENT], interests before it, the latest first, -1 where there were fewer.
        known: [T, C], interests that were not new to the person any more.
    """

    users: Ints
    items: Ints
    days: Ints
    recent: Ints
    known: Bools


@dataclass(frozen=True)
class Impressions:
    """Looked-at items of interests that were new to the person: everything [I].

    Attributes:
        users: who looked.
        items: at what.
        days: when.
        liked: whether they liked it.
        recent: [I, RECENT], interests before it, the latest first, -1 where there were fewer.
        known: [I, C], interests that were not new to the person any more.
    """

    users: Ints
    items: Ints
    days: Ints
    liked: Bools
    recent: Ints
    known: Bools

    def take(self, rows: Ints) -> Impressions:
        """Some of them."""
        return Impressions(*(getattr(self, field.name)[rows] for field in fields(self)))


class Journal:
    """The log of one arm in one world, and everybody's state by it.

    Args:
        people: in the world.
        cluster_of: [n], interest of every place for an item; interests stand together and are of one size.
        exists: [n], places that hold an item; None: all do.
    """

    def __init__(self, people: int, cluster_of: Ints, exists: Bools | None = None) -> None:
        self.cluster_of, self.people = cluster_of, people
        self.n, self.clusters = len(cluster_of), int(cluster_of.max()) + 1
        held = np.ones(self.n, dtype=bool) if exists is None else exists
        self.exists: Bools = held.reshape(self.clusters, -1)  # [C, n / C]
        self.profile: Floats = np.zeros((people, self.n), dtype=np.float32)
        self.ever: Bools = np.zeros((people, self.n), dtype=bool)
        self.known: Bools = np.zeros((people, self.clusters), dtype=bool)
        self.last: Floats = np.full((people, self.clusters), -np.inf, dtype=np.float32)
        self.shown: Floats = np.full((people, self.n), -np.inf, dtype=np.float32)  # the day an item was last shown
        self.tries = np.zeros((2, self.n))  # looked at and liked, over all people
        self._events: list[tuple[Ints, Ints, Ints]] = []
        self._choices: list[tuple[Ints, Ints, Ints, Ints, Bools]] = []
        self._novel: list[tuple[Ints, Ints, Ints, Bools, Ints, Bools]] = []
        self._clock = 0.0

    def new_day(self) -> None:
        """Earlier events count less from now on."""
        self.profile *= np.float32(DECAY)

    def add_liked(self, users: Ints, items: Ints, day: int) -> None:
        """Notes positive events, in order; a person may occur several times."""
        order = np.argsort(users, kind="stable")
        first = np.searchsorted(users[order], users[order])
        turn = np.arange(len(users)) - first
        for now in range(int(turn.max(initial=-1)) + 1):
            some = order[turn == now]
            self._add_one_each(users[some], items[some], day)

    def _add_one_each(self, users: Ints, items: Ints, day: int) -> None:
        clusters = self.cluster_of[items]
        new = ~self.known[users, clusters]
        if new.any():
            recent = self.recent(users[new], RECENT)
            row = (users[new], items[new], np.full(int(new.sum()), day), recent)
            self._choices.append((*row, self.known[users[new]].copy()))
        self._events.append((users, items, np.full(len(users), day)))
        self.profile[users, items] += 1.0
        self.ever[users, items] = True
        self.known[users, clusters] = True
        self._clock += 1.0
        self.last[users, clusters] = self._clock

    def add_looks(self, users: Ints, items: Ints, liked: Bools) -> None:
        """Notes which items were looked at, and whether they were liked."""
        np.add.at(self.tries[0], items, 1.0)
        np.add.at(self.tries[1], items[liked], 1.0)

    def add_novel(self, users: Ints, items: Ints, day: int, liked: Bools) -> None:
        """Notes looks at items of new interests, before what was liked of them is noted."""
        state = self.recent(users, RECENT), self.known[users].copy()
        self._novel.append((users, items, np.full(len(users), day), liked, *state))

    # --- what is known ----------------------------------------------------------------------------------------------

    def recent(self, users: Ints, count: int) -> Ints:
        """[B, count], last interests, the latest first, -1 where there are fewer."""
        last = self.last[users]
        order = np.argsort(-last, axis=1, kind="stable")[:, :count]
        return np.where(np.isfinite(np.take_along_axis(last, order, axis=1)), order, -1)

    def events(self) -> tuple[Ints, Ints, Ints]:
        """Positive events: people, items, days."""
        users, items, days = _joined(self._events)
        return users, items, days

    def choices(self) -> Choice:
        """Positive first events with an interest."""
        return Choice(*_joined(self._choices))

    def impressions(self) -> Impressions:
        """Looks at items of new interests."""
        if not self._novel:
            none = np.zeros(0, dtype=np.int64)
            empty = np.zeros((0, RECENT), dtype=np.int64), np.zeros((0, self.clusters), dtype=bool)
            return Impressions(none, none, none, none.astype(bool), *empty)
        return Impressions(*_joined(self._novel))

    @property
    def approval(self) -> Floats:
        """[n], log-odds of the share of looks that were liked, shrunk by 10 imagined looks, centred."""
        share = (self.tries[1] + 10 * self.tries[1].sum() / max(self.tries[0].sum(), 1)) / (self.tries[0] + 10)
        share = np.clip(share, 0.01, 0.99)
        odds = np.log(share / (1 - share))
        found: Floats = (odds - odds.mean()).astype(np.float32)
        return found


def contexts_of(recent: Ints) -> tuple[Ints, Floats]:
    """Pairs of recent interests [B, P, 2], oldest first, and weights [B, P], 0 where there is none.

    A pair's weight is the product of its interests', each 2 ** (-age / HALF_LIFE).

    Args:
        recent: [B, RECENT], the latest first, -1 where there are fewer.
    """
    newer, older = np.triu_indices(recent.shape[1], 1)
    pairs = np.stack([recent[:, older], recent[:, newer]], axis=2)
    weights = 2.0 ** (-(older + newer) / HALF_LIFE) * (pairs >= 0).all(axis=2)
    return np.maximum(pairs, 0), weights.astype(np.float32)


def _joined(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))
