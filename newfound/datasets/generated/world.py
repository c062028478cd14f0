"""All that generated users have in common: interests, items and their popularity, and how many events each user has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from newfound.datasets.generated.calibration import Calibration, split_by
from newfound.datasets.generated.words import ASPECTS, TOPICS
from newfound.errors import ConfigError
from newfound.types import Doubles, Floats, Ints


@dataclass(frozen=True)
class Size:
    """Size of a generated data set.

    Raises:
        ConfigError: not every user can have an event, histories would hold more than a third of all items, or there are
            more interests than words or items for them.
    """

    interactions: int
    users: int
    items: int
    clusters: int
    seed: int = 0

    def __post_init__(self) -> None:
        most = min(len(TOPICS) * len(ASPECTS), self.items)
        if not (0 < self.users <= self.interactions <= self.users * self.items / 3 and 0 < self.clusters <= most):
            raise ConfigError(
                f"{self.interactions} interactions of {self.users} users with {self.items} items of {self.clusters} "
                f"clusters; expected from one interaction a user to a third of all items, and from 1 to {most} clusters"
            )


class World:
    """All that users have in common: interests, items and their popularity.

    Items are numbered by interest; ids hide that.

    Attributes:
        interest: [I], of each item.
        starts: [C], where each interest begins in the cumulated popularity, and `mass` [C], how much of it is its own.
        ids: [I], numbers in the items' ids.
    """

    def __init__(self, size: Size, shape: Calibration) -> None:
        self.size, self.shape = size, shape
        rng = np.random.default_rng([size.seed, 0])
        topics = min(len(TOPICS), max(1, round((2 * size.clusters) ** 0.5)), size.clusters)
        topics = max(topics, -(-size.clusters // len(ASPECTS)))
        self.topic: Ints = np.arange(size.clusters, dtype=np.int64) % topics
        sizes = rng.dirichlet(np.full(size.clusters, 3.0))
        drawn = rng.choice(size.clusters, size.items - size.clusters, p=sizes)
        self.interest: Ints = np.sort(np.concatenate([np.arange(size.clusters), drawn])).astype(np.int64)
        self.popularity: Doubles = rng.permutation(split_by(shape.popularity, size.items))
        self.ids: Ints = rng.permutation(size.items)
        self.lengths: Ints = rng.permutation(_lengths(shape, size))
        self.quality: Floats = rng.standard_normal(size.items, dtype=np.float32)
        self.sharpness, self.kinship, self.staying = 1.0, shape.kinship, shape.staying
        self.weigh()

    def weigh(self) -> None:
        """Weighs items by their popularity, made as sharp as `sharpness` says."""
        weights = self.popularity**self.sharpness
        self.upto: Doubles = np.cumsum(weights)
        self.mass: Doubles = np.bincount(self.interest, weights, minlength=self.size.clusters).astype(np.float64)
        self.starts: Doubles = np.cumsum(self.mass) - self.mass

    @cached_property
    def branches(self) -> list[Ints]:
        """The interests of every topic."""
        return [np.flatnonzero(self.topic == topic) for topic in range(int(self.topic.max()) + 1)]

    @cached_property
    def thresholds(self) -> Doubles:
        """Standard normal numbers at which the next rating begins."""
        shares = np.cumsum([share for _, share in self.shape.ratings])[:-1]
        return np.array([NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9)) for share in shares])


def _lengths(shape: Calibration, size: Size) -> Ints:
    """Events of each user, at least one, which add up to all."""
    lengths = np.maximum(1, np.floor(split_by(shape.activity, size.users) * size.interactions)).astype(np.int64)
    while missing := size.interactions - int(lengths.sum()):
        # Those rounded down get one more; where too many got their one, the longest give.
        first = lengths[: abs(missing)]
        first += 1 if missing > 0 else np.where(first > 1, -1, 0)
    found: Ints = lengths
    return found
