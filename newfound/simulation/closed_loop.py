"""The closed loop: an arm decides, people react, the log grows, the arm learns from it, day after day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from newfound.config import Settings
from newfound.measures import gini
from newfound.recommend.policy import novel_positions
from newfound.simulation.arms import Arm, best_of_each
from newfound.simulation.journal import Journal
from newfound.simulation.linear_ranker import LinearRanker, fit_linear_ranker
from newfound.simulation.world import World
from newfound.types import Bools, Doubles, Floats, Ints


class LoopConfig(Settings):
    """The schedule, the same for all arms.

    Attributes:
        days: simulated.
        retrain: days between two fits.
        slots: of a slate.
        novel: of them, for interests new to the person; the ranker alone has none set aside.
        each: items that a slate shows of one interest at most.
        rest: days for which an item that was shown is not shown again.
        retained: days after which a new interest that is enjoyed again counts as retained.
        unique: N of UCI@N, unique interests in seven days.
    """

    days: int = 36
    retrain: int = 6
    slots: int = 8
    novel: int = 2
    each: int = 2
    rest: int = 5
    retained: int = 7
    unique: int = 8


@dataclass
class Outcome:
    """Outcome of an arm in a world.

    Attributes:
        people: by measure, [U] a figure for everybody.
        totals: measures that are of the whole.
        daily: by measure, [days] over time.
    """

    people: dict[str, Doubles]
    totals: dict[str, float]
    daily: dict[str, list[float]] = field(default_factory=dict)


def first_journal(world: World) -> Journal:
    """The journal of the older system, with first looks at an interest as impressions of novel slots."""
    users, items, days, liked = world.first_log()
    journal = Journal(world.config.people, world.cluster_of)
    for day in range(-world.config.past, 0):
        journal.new_day()
        today = days == day
        u, i, good = users[today], items[today], liked[today]
        new = ~journal.known[u, world.cluster_of[i]]
        journal.add_looks(u, i, good)
        journal.add_novel(u[new], i[new], day, good[new])
        journal.add_liked(u[good], i[good], day)
    return journal


class Loop:
    """One arm in one world.

    Args:
        world: fresh, its first log drawn.
        journal: of that log; it is written on.
        arm: decides.
        config: the schedule.
        seed: of the arm's own chance.
    """

    def __init__(self, world: World, journal: Journal, arm: Arm, config: LoopConfig, seed: int) -> None:
        self.world, self.journal, self.arm, self.config, self.seed = world, journal, arm, config, seed
        self._ranker: LinearRanker | None = None
        self._tally = Tally(journal, config)

    def run(self, progress: Callable[[int], None] = lambda day: None) -> Outcome:
        """Lives through all days."""
        for day in range(self.config.days):
            self.journal.new_day()
            if day % self.config.retrain == 0:
                self._ranker = fit_linear_ranker(self.journal.ever)
                self.arm.fit(self.journal, self._ranker, self.seed + day)
            self._day(day)
            progress(day)
        return self._tally.outcome()

    def _day(self, day: int) -> None:
        assert self._ranker is not None
        world, journal = self.world, self.journal
        present = world.present(day)
        generator = np.random.default_rng([self.seed, day])
        slates = self._slates(day, self._ranker.scores(journal.profile), generator)
        best = self._best_possible(day, world.likings())
        new = ~np.take_along_axis(journal.known, world.cluster_of[np.maximum(slates, 0)], axis=1) & (slates >= 0)
        reactions = world.react(day, slates, present)
        rows, slots = np.nonzero(present[:, None] & (slates >= 0))
        journal.shown[rows, slates[rows, slots]] = day
        users, at = np.nonzero(reactions.seen)
        items, liked = slates[users, at], reactions.liked[users, at]
        journal.add_looks(users, items, liked)
        fresh = new[users, at]
        journal.add_novel(users[fresh], items[fresh], day, liked[fresh])
        journal.add_liked(users[liked], items[liked], day)
        found = world.find_elsewhere(day)
        others = np.flatnonzero(found >= 0)
        journal.add_liked(others, found[others], day)
        world.end_day(reactions, present)
        every = (np.concatenate([users[liked], others]), np.concatenate([items[liked], found[others]]))
        self._tally.add(day, present, reactions.seen, reactions.liked, new, reactions.chance, best, slates, every)

    def _hidden(self, day: int) -> Bools:
        return self.journal.ever | (self.journal.shown > day - self.config.rest)

    def _slates(self, day: int, scores: Floats, generator: np.random.Generator) -> Ints:
        """[U, slots] items, best first within familiar and novel slots; -1 where nothing was left."""
        journal, config = self.journal, self.config
        free = ~self._hidden(day)
        if not self.arm.explores:
            return top_items(np.where(free, scores, -np.inf), journal.clusters, config.slots, config.each)
        known = journal.known[:, journal.cluster_of]
        allowed = best_of_each(free & ~known, journal.clusters).astype(bool)
        offer = self.arm.offer(journal, scores, allowed, generator)
        items = np.where(free & ~known, offer.items, -np.inf)
        if offer.clusters is None:
            novel = top_items(items, journal.clusters, config.novel, 1)
        else:
            novel = top_interests(items, np.where(allowed, offer.clusters, -np.inf), config.novel)
        count = config.slots - config.novel
        familiar = top_items(np.where(free & known, scores, -np.inf), journal.clusters, count, config.each)
        slate = np.full((len(scores), config.slots), -1, dtype=np.int64)
        places = novel_positions(config.slots, config.novel)
        slate[:, places] = novel
        slate[:, np.setdiff1d(np.arange(config.slots), places)] = familiar
        return slate

    def _best_possible(self, day: int, likings: Floats) -> Doubles:
        """[U], the mean chance of the best slate that whoever knew everything could show."""
        open_ = np.where(self._hidden(day), 0.0, likings)
        slate = top_items(open_, self.journal.clusters, self.config.slots, self.config.each)
        return np.asarray(np.take_along_axis(open_, np.maximum(slate, 0), axis=1).mean(axis=1), dtype=np.float64)


def top_items(values: Floats, clusters: int, count: int, each: int) -> Ints:
    """[U, count] items of the highest values, at most `each` of an interest, -1 for minus infinity.

    Args:
        values: [U, n], interests' items standing together.
    """
    size = values.shape[1] // clusters
    apart = values.reshape(len(values), clusters, size)
    inside = np.argpartition(-apart, min(each, size) - 1, axis=2)[:, :, :each]
    best = np.take_along_axis(apart, inside, axis=2).reshape(len(values), -1)
    items = (inside + np.arange(clusters)[None, :, None] * size).reshape(len(values), -1)
    order = np.argsort(-best, axis=1, kind="stable")[:, :count]
    return np.where(np.isfinite(np.take_along_axis(best, order, axis=1)), np.take_along_axis(items, order, axis=1), -1)


def top_interests(items: Floats, clusters: Floats, count: int) -> Ints:
    """[U, count], the best item of each of the best interests, -1 where there is none."""
    size = items.shape[1] // clusters.shape[1]
    apart = items.reshape(len(items), clusters.shape[1], size)
    best = apart.argmax(axis=2) + np.arange(clusters.shape[1]) * size
    order = np.argsort(-clusters, axis=1, kind="stable")[:, :count]
    return np.where(
        np.isfinite(np.take_along_axis(clusters, order, axis=1)), np.take_along_axis(best, order, axis=1), -1
    )


class Tally:
    """Measures over time."""

    def __init__(self, journal: Journal, config: LoopConfig) -> None:
        people, clusters = journal.people, journal.clusters
        self.config, self.cluster_of = config, journal.cluster_of
        self.start = journal.known.copy()
        self.first: Floats = np.full((people, clusters), np.inf, dtype=np.float32)
        self.last: Floats = np.full((people, clusters), -np.inf, dtype=np.float32)
        self.retained: Bools = np.zeros((people, clusters), dtype=bool)
        names = ("visits", "seen", "liked", "novel_seen", "novel_liked", "unique", "unique_days", "regret")
        self.sums: dict[str, Doubles] = {name: np.zeros(people) for name in names}
        self.exposures = np.zeros((2, journal.n))
        self.daily: dict[str, list[float]] = {
            "new_interests": [],
            "retained": [],
            "return_rate": [],
            "satisfaction": [],
        }

    def add(
        self,
        day: int,
        present: Bools,
        seen: Bools,
        liked: Bools,
        new: Bools,
        chance: Floats,
        best: Doubles,
        slates: Ints,
        events: tuple[Ints, Ints],
    ) -> None:
        """Counts a day."""
        users, clusters = events[0], self.cluster_of[events[1]]
        self.first[users, clusters] = np.minimum(self.first[users, clusters], day)
        new_to_all = ~self.start[users, clusters]
        again = new_to_all & (day >= self.first[users, clusters] + self.config.retained)
        self.retained[users[again], clusters[again]] = True
        self.last[users, clusters] = day
        sums = self.sums
        sums["visits"] += present
        sums["seen"] += seen.sum(axis=1)
        sums["liked"] += liked.sum(axis=1)
        sums["novel_seen"] += (seen & new).sum(axis=1)
        sums["novel_liked"] += (liked & new).sum(axis=1)
        sums["regret"] += np.where(present, best - chance.mean(axis=1), 0.0)
        if day >= 7:
            week = (self.last > day - 7).sum(axis=1)
            sums["unique"] += week >= self.config.unique
            sums["unique_days"] += 1
        np.add.at(self.exposures[0], slates[seen], 1)
        np.add.at(self.exposures[1], slates[liked], 1)
        self.daily["new_interests"].append(float((np.isfinite(self.first) & ~self.start).sum(axis=1).mean()))
        self.daily["retained"].append(float(self.retained.sum(axis=1).mean()))
        self.daily["return_rate"].append(float(present.mean()))
        self.daily["satisfaction"].append(float(liked.sum() / max(seen.sum(), 1)))

    def outcome(self) -> Outcome:
        """All measures."""
        sums = self.sums
        days = self.config.days
        people = {
            "retained_interests": self.retained.sum(axis=1).astype(np.float64),
            "uci_at_n": sums["unique"] / np.maximum(sums["unique_days"], 1),
            "ueuc": np.isfinite(self.first).sum(axis=1).astype(np.float64),
            "satisfaction": sums["liked"] / np.maximum(sums["seen"], 1),
            "enjoyed": sums["liked"],
            "return_rate": sums["visits"] / days,
            "regret": sums["regret"] / np.maximum(sums["visits"], 1),
        }
        found = float(sums["novel_liked"].sum() / max(sums["novel_seen"].sum(), 1))
        enough = 3 * len(self.start) / 100  # positives for an item to count as discovered
        totals = {
            "novel_positive_rate": found,
            "novelty_ratio": float(sums["novel_seen"].sum() / max(sums["seen"].sum(), 1)),
            "discoverable_corpus": float((self.exposures[1] >= enough).mean()),
            "exposure_gini": float(gini(self.exposures[0])),
        }
        return Outcome(people, totals, self.daily)
