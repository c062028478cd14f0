"""The settings of a simulated world, and the tastes that are made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from newfound.settings import Settings
from newfound.types import Bools, Floats, Ints

Family = Literal["latent", "low_rank", "neighbourhood"]


class WorldConfig(Settings):
    """A world's assumptions.

    Attributes:
        family: how tastes are made.
        people: simulated.
        themes: of the tree; each holds an interest for every facet.
        facets: likewise.
        items: of each interest.
        kinship: share of what ties tastes together that the words of the descriptions carry; 0: words say nothing.
        awake: tastes that a person has at first (latent family).
        dormant: share of linked interests that a person would come to like; 0: nobody has anything left to find.
        surprise: share of interests that nothing points to and that a person would like all the same.
        satiation: fall of a liking's log-odds for each item of the interest enjoyed lately; halves every two days.
        boredom: likewise for each enjoyed in the past weeks.
        looks: chance to look at the next slot, having looked at this one.
        popularity: spread of the interests' and the items' common appeal, in log-odds.
        variety: how much a newly varied week raises the log-odds of coming back.
        elsewhere: chance a day that a person finds an item without the recommender.
        reach: share of interests that the older system behind the first log ever showed a person.
        past: days of the first log.
    """

    family: Family = "latent"
    people: int = 400
    themes: int = 8
    facets: int = 6
    items: int = 10
    kinship: float = 0.8
    awake: int = 4
    dormant: float = 0.5
    surprise: float = 0.04
    satiation: float = 0.35
    boredom: float = 0.06
    looks: float = 0.94
    popularity: float = 0.5
    variety: float = 0.5
    elsewhere: float = 0.3
    reach: float = 0.35
    past: int = 30

    @property
    def clusters(self) -> int:
        """Interests."""
        return self.themes * self.facets


@dataclass(frozen=True)
class Tastes:
    """Tastes of people, in log-odds, hidden from every arm.

    Attributes:
        first: [U, C], of an interest that is not awake.
        awake: [U, C], of one that is.
        is_awake: [U, C], at the start.
        links: [C, C], the interest that liking both makes likely; -1: none.
        susceptible: [U, C], whether the person follows a link to the interest.
        items: [U, n] or [1, n], what an item adds.
    """

    first: Floats
    awake: Floats
    is_awake: Bools
    links: Ints
    susceptible: Bools
    items: Floats
