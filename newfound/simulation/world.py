"""Closed-loop worlds: people with hidden tastes over a tree of interests, who react to slates, day after day.

Themes hold interests, and an interest has a facet too, which crosses the themes: "cooking, vintage". What people like
comes from one of three families (`tastes.py`). What all worlds share is how a day goes: people look down the slate
(position bias), like what suits them, tire of what they just had (satiation) and of what they had too often (boredom),
come back the likelier the more *different* things they enjoyed, and find things elsewhere too. Some tastes are dormant:
links from tastes that a person has make them likely, and they show only when the interest is met.

Chance comes from the seed and the day alone, so that every arm meets the same chance (common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from newfound.errors import ConfigError
from newfound.simulation.tastes import make_tastes
from newfound.simulation.world_config import Tastes, WorldConfig
from newfound.types import Bools, Doubles, Floats, Ints

LOOK, LIKE, RETURN, ELSEWHERE, PAST, TASTES = range(6)  # streams of chance


@dataclass(frozen=True)
class Reactions:
    """Responses of people to slates: all [U, K]; nothing where nobody was there.

    Attributes:
        seen: looked at.
        liked: enjoyed.
        chance: the true probability to enjoy, had they looked.
    """

    seen: Bools
    liked: Bools
    chance: Floats


def linked(links: Ints, awake: Bools) -> Bools:
    """[U, C], interests that two awake ones point to.

    >>> links = np.array([[-1, 2, -1], [-1, -1, -1], [-1, -1, -1]])
    >>> linked(links, np.array([[True, True, False], [True, False, True]]))
    array([[False, False,  True],
           [False, False, False]])
    """
    older, newer = np.nonzero(links >= 0)
    found = np.zeros_like(awake)
    if len(older):
        order = np.argsort(links[older, newer], kind="stable")
        older, newer = older[order], newer[order]
        targets, starts = np.unique(links[older, newer], return_index=True)
        found[:, targets] = np.logical_or.reduceat(awake[:, older] & awake[:, newer], starts, axis=1)
    return found & ~awake


class World:
    """People in the course of time.

    Args:
        config: the assumptions.
        seed: of tastes and of all chance.

    Raises:
        ConfigError: the family is unknown, or people have more tastes than there are interests.
    """

    def __init__(self, config: WorldConfig, seed: int) -> None:
        if config.awake >= config.clusters:
            raise ConfigError(f"world: {config.awake} tastes of {config.clusters} interests; expected fewer")
        self.config, self.seed = config, seed
        self.cluster_of: Ints = np.repeat(np.arange(config.clusters), config.items)
        self.tastes: Tastes = make_tastes(config, self.chance(TASTES))
        people, clusters = config.people, config.clusters
        self.is_awake = self.tastes.is_awake.copy()
        self.dormant: Bools = linked(self.tastes.links, self.is_awake) & self.tastes.susceptible
        self._woken: Bools = np.zeros(people, dtype=bool)
        self.lately: Floats = np.zeros((people, clusters), dtype=np.float32)
        self.long: Floats = np.zeros((people, clusters), dtype=np.float32)
        self.mood: Floats = np.zeros(people, dtype=np.float32)
        self.week: Floats = np.zeros((people, clusters), dtype=np.float32)

    def chance(self, stream: int, day: int = 0) -> np.random.Generator:
        """The generator of one stream of chance on one day."""
        return np.random.default_rng([self.seed, stream, day + self.config.past])

    # --- what people like -------------------------------------------------------------------------------------------

    def interests(self) -> Floats:
        """Log-odds of liking an item of each interest now, [U, C], without satiation and boredom."""
        found: Floats = np.where(self.is_awake | self.dormant, self.tastes.awake, self.tastes.first)
        return found

    def likings(self) -> Floats:
        """The true probability to enjoy each item now, [U, n]."""
        tired = self.config.satiation * self.lately + self.config.boredom * self.long
        odds = (self.interests() - tired)[:, self.cluster_of] + self.tastes.items
        found: Floats = _sigmoid(odds)
        return found

    # --- what people do ---------------------------------------------------------------------------------------------

    def present(self, day: int) -> Bools:
        """[U], who comes today."""
        odds = -0.4 + self.config.variety * self.mood
        return np.asarray(self.chance(RETURN, day).random(self.config.people) < _sigmoid(odds))

    def react(self, day: int, slates: Ints, present: Bools) -> Reactions:
        """Responses of people to today's slates.

        Args:
            day: from 0.
            slates: [U, K] items, -1 for an empty slot.
            present: [U].
        """
        shape = slates.shape
        look, like = self.chance(LOOK, day).random(shape), self.chance(LIKE, day).random(shape)
        goes_on = np.concatenate([np.ones((shape[0], 1), dtype=bool), look[:, 1:] < self.config.looks], axis=1)
        seen = np.logical_and.accumulate(goes_on, axis=1) & present[:, None] & (slates >= 0)
        chance = np.where(slates >= 0, np.take_along_axis(self.likings(), np.maximum(slates, 0), axis=1), 0.0)
        liked = seen & (like < chance)
        rows, slots = np.nonzero(liked)
        self._enjoy(rows, self.cluster_of[slates[rows, slots]])
        return Reactions(seen, liked, chance.astype(np.float32))

    def find_elsewhere(self, day: int) -> Ints:
        """[U], the item that each person enjoyed without the recommender today, -1 for none."""
        generator = self.chance(ELSEWHERE, day)
        goes = generator.random(self.config.people) < self.config.elsewhere
        interest = _draw(_sigmoid(self.interests() - self.config.satiation * self.lately) ** 2, generator)
        place = (generator.random(self.config.people) ** 1.5 * self.config.items).astype(np.int64)
        rows = np.flatnonzero(goes)
        self._enjoy(rows, interest[rows])
        return np.where(goes, interest * self.config.items + place, -1)

    def _enjoy(self, rows: Ints, clusters: Ints) -> None:
        np.add.at(self.lately, (rows, clusters), 1.0)
        np.add.at(self.long, (rows, clusters), 1.0)
        self.week[rows, clusters] = 1.0
        wakes = self.dormant[rows, clusters]
        self.is_awake[rows[wakes], clusters[wakes]] = True
        self._woken[rows[wakes]] = True

    def _follow_links(self) -> None:
        """Tastes that awoke today make others likely."""
        rows = np.flatnonzero(self._woken)
        self.dormant[rows] = linked(self.tastes.links, self.is_awake[rows]) & self.tastes.susceptible[rows]
        self._woken[:] = False

    def end_day(self, reactions: Reactions, present: Bools) -> None:
        """Tiredness fades, moods follow what the day was like, and newly awake tastes make others likely."""
        self.lately *= np.float32(0.7)
        self.long *= np.float32(0.97)
        share = reactions.liked.sum(axis=1) / np.maximum(reactions.seen.sum(axis=1), 1)
        varied = np.log1p(self.week.sum(axis=1))
        today = 2.0 * share + varied - 1.5
        self.mood = np.where(present, 0.7 * self.mood + 0.3 * today, 0.97 * self.mood).astype(np.float32)
        self.week *= np.float32(0.87)
        self._follow_links()

    # --- the log that everything starts with ------------------------------------------------------------------------

    def first_log(self) -> tuple[Ints, Ints, Ints, Bools]:
        """Log of an older system: people [E], items [E], days [E] below 0 and whether liked [E].

        It shows each person items of a part of the interests only, popular ones foremost; that part is all they know.
        """
        config = self.config
        generator = self.chance(PAST, -config.past)
        popular = _sigmoid(self.interests().mean(axis=0) * 2)
        keys = generator.random((config.people, config.clusters)) ** (1.0 / (popular + 0.02))
        count = max(round(config.reach * config.clusters), 2)
        reached = keys >= np.sort(keys, axis=1)[:, -count][:, None]
        rows: list[tuple[Ints, Ints, int, Bools]] = []
        everybody = np.arange(config.people)
        for day in range(-config.past, 0):
            generator = self.chance(PAST, day)
            shown = np.where(reached, 0.02 + _sigmoid(self.interests()), 0.0)
            for _ in range(2):
                interest = _draw(shown, generator)
                item = interest * config.items + (generator.random(config.people) * config.items).astype(np.int64)
                there = generator.random(config.people) < 0.5
                enjoyed = generator.random(config.people) < self.likings()[everybody, item]
                rows.append((everybody[there], item[there], day, enjoyed[there]))
                glad = np.flatnonzero(there & enjoyed)
                self._enjoy(glad, interest[glad])
            found = self.find_elsewhere(day)
            there = found >= 0
            rows.append((everybody[there], found[there], day, np.ones(int(there.sum()), dtype=bool)))
            self.lately *= np.float32(0.7)
            self.long *= np.float32(0.97)
            self._follow_links()
        users, items, days, liked = zip(*rows, strict=True)
        when = np.repeat(np.array(days, dtype=np.int64), [len(some) for some in users])
        return np.concatenate(users), np.concatenate(items), when, np.concatenate(liked)


def _draw(weights: Floats, generator: np.random.Generator) -> Ints:
    """[U], a column of each row in proportion to its weights."""
    total = np.cumsum(weights, axis=1, dtype=np.float64)
    point = generator.random((len(weights), 1)) * total[:, -1:]
    return np.asarray((total <= point).sum(axis=1).clip(max=weights.shape[1] - 1), dtype=np.int64)


def _sigmoid(odds: Floats | Doubles) -> Floats:
    found: Floats = (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
    return found
