"""Families of tastes: latent interests with links between them, low rank, and neighbourhoods.

No family shares a model with an arm of the experiment. What ties tastes together follows the words of the descriptions
to the degree of `kinship`; the rest is drawn at random and no text tells of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from newfound.errors import ConfigError
from newfound.simulation.world_config import Tastes, WorldConfig
from newfound.types import Array, Bools, Doubles, Floats, Ints

THEMES: Final = (
    "music",
    "cooking",
    "cycling",
    "gardening",
    "painting",
    "astronomy",
    "sailing",
    "chess",
    "pottery",
    "ski",
)
FACETS: Final = (
    "for children",
    "vintage",
    "outdoors",
    "competition",
    "history",
    "on a budget",
    "luxury",
    "do it yourself",
)
DISLIKED, LIKED = -3.0, 0.4  # log-odds of liking an item: 5 % and 60 %


def descriptions(config: WorldConfig) -> list[str]:
    """Topic of each interest, by theme and then facet, such as "cooking, vintage".

    Raises:
        ConfigError: there are more themes or facets than words for them.
    """
    if config.themes > len(THEMES) or config.facets > len(FACETS):
        raise ConfigError(f"world: {config.themes} x {config.facets} interests; at most {len(THEMES)} x {len(FACETS)}")
    return [f"{theme}, {facet}" for theme in THEMES[: config.themes] for facet in FACETS[: config.facets]]


def make_tastes(config: WorldConfig, generator: np.random.Generator) -> Tastes:
    """Everybody's tastes.

    Raises:
        ConfigError: the family is unknown.
    """
    makers = {"latent": _latent, "low_rank": _low_rank, "neighbourhood": _neighbourhood}
    if config.family not in makers:
        raise ConfigError(f"world: family {config.family!r}; expected one of {', '.join(makers)}")
    return makers[config.family](config, generator)


def _appeal(config: WorldConfig, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Common appeal of interests [C] and of items [n], in log-odds."""
    clusters = config.popularity * generator.standard_normal(config.clusters)
    items = config.popularity * generator.standard_normal(config.clusters * config.items)
    return clusters, items


def _links(config: WorldConfig, generator: np.random.Generator) -> Ints:
    """[C, C], what liking both leads to: the theme of the one with the facet of the other, or anything."""
    clusters, facets = config.clusters, config.facets
    theme, facet = np.divmod(np.arange(clusters), facets)
    crossed = theme[:, None] * facets + facet[None, :]
    strange = generator.integers(0, clusters, (clusters, clusters))
    links = np.where(generator.random((clusters, clusters)) < config.kinship, crossed, strange)
    own = np.arange(clusters)
    return np.where((links == own[:, None]) | (links == own[None, :]), -1, links)


def _relatives(config: WorldConfig, generator: np.random.Generator) -> Bools:
    """[C, C], interests akin to one another: of a theme or a facet, or anything, to the degree of kinship."""
    clusters, facets = config.clusters, config.facets
    theme, facet = np.divmod(np.arange(clusters), facets)
    akin = (theme[:, None] == theme) | (facet[:, None] == facet)
    order = generator.permutation(clusters)
    strange = akin[np.ix_(order, order)]
    by_words = generator.random((clusters, clusters)) < config.kinship
    return np.asarray(np.where(by_words, akin, strange), dtype=bool)


def _latent(config: WorldConfig, generator: np.random.Generator) -> Tastes:
    """A few tastes each, related ones likelier, and links from pairs of them to dormant ones."""
    people, clusters = config.people, config.clusters
    appeal, items = _appeal(config, generator)
    relatives = _relatives(config, generator)
    awake = np.zeros((people, clusters), dtype=bool)
    for _ in range(config.awake):
        near = (awake.astype(np.float64) @ relatives) * 0.5
        keys = appeal * 2 + near + generator.gumbel(size=(people, clusters))
        keys[awake] = -np.inf
        awake[np.arange(people), keys.argmax(axis=1)] = True
    links = _links(config, generator)
    follows = generator.random((people, clusters)) < config.dormant
    first = DISLIKED + 0.5 * appeal + 0.4 * generator.standard_normal((people, clusters))
    surprised = generator.random((people, clusters)) < config.surprise
    ready = LIKED + 0.5 * appeal + 0.4 * generator.standard_normal((people, clusters))
    first = np.where(surprised, ready, first)
    return Tastes(_f32(first), _f32(ready), awake, links, follows, _f32(items[None]))


def _low_rank(config: WorldConfig, generator: np.random.Generator) -> Tastes:
    """A few numbers a person and an interest; their product is the taste. Items deviate a little, by person too."""
    people, clusters, rank = config.people, config.clusters, 6
    appeal, items = _appeal(config, generator)
    theme, facet = np.divmod(np.arange(clusters), config.facets)
    words = (
        generator.standard_normal((config.themes, rank))[theme]
        + generator.standard_normal((config.facets, rank))[facet]
    ) / np.sqrt(2)
    own = generator.standard_normal((clusters, rank))
    vectors = np.sqrt(config.kinship) * words + np.sqrt(1 - config.kinship) * own
    taste = generator.standard_normal((people, rank)) @ vectors.T / np.sqrt(rank)
    odds = -2.1 + 1.7 * taste + 0.7 * appeal
    return _plain(config, odds, items)


def _neighbourhood(config: WorldConfig, generator: np.random.Generator) -> Tastes:
    """Everybody is like a few of many characters, each with a list of interests of their own."""
    people, clusters, characters = config.people, config.clusters, 80
    appeal, items = _appeal(config, generator)
    relatives = _relatives(config, generator)
    lists = np.zeros((characters, clusters), dtype=bool)
    for _ in range(8):
        near = lists.astype(np.float64) @ relatives * 0.6
        keys = appeal + near + generator.gumbel(size=(characters, clusters))
        keys[lists] = -np.inf
        lists[np.arange(characters), keys.argmax(axis=1)] = True
    mix = np.zeros((people, characters))
    for weight in (0.6, 0.4):
        mix[np.arange(people), generator.integers(0, characters, people)] += weight
    share = np.minimum(mix @ lists * 1.4, 1.0)
    odds = DISLIKED + (LIKED - DISLIKED) * share + 0.5 * appeal + 0.4 * generator.standard_normal((people, clusters))
    return _plain(config, odds, items)


def _plain(config: WorldConfig, odds: Array, items: Doubles) -> Tastes:
    """Tastes that are as they are: all awake, without links."""
    shape = odds.shape
    links = np.full((shape[1], shape[1]), -1, dtype=np.int64)
    none = np.zeros(shape, dtype=bool)
    return Tastes(_f32(odds), _f32(odds), none, links, none, _f32(items[None]))


def _f32(values: Array) -> Floats:
    found: Floats = values.astype(np.float32)
    return found
