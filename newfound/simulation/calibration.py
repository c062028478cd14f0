"""Bands around real logs that a world has to lie in before anything that happens in it counts.

The bands were taken from real logs with a wide margin: MovieLens-100K (55 % of ratings are likes; Gini of likes .71,
where films are many; 106 events a person) and Coat (27 % of self-selected and 19 % of random coats are liked;
Gini .42 to .47; 11 of 25 interests a person). A world's own people are new in every seed, so all of it is held out.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from newfound.measures import gini
from newfound.simulation.closed_loop import first_journal
from newfound.simulation.world import World
from newfound.simulation.world_config import WorldConfig

BANDS: Final = {
    "like_rate": (0.25, 0.65),
    "like_rate_random": (0.05, 0.35),
    "gini_of_likes": (0.2, 0.75),
    "events": (15.0, 120.0),
    "share_of_interests_known": (0.1, 0.6),
    "popular_over_random": (0.0, 1.0),
}


def calibrate(config: WorldConfig, seed: int) -> tuple[dict[str, float], list[str]]:
    """A world's facts, and the names of those outside their band.

    Args:
        config: the world.
        seed: of its people.
    """
    world = World(config, seed)
    journal = first_journal(world)
    likings = world.likings()
    new = ~journal.known
    by_cluster = likings.reshape(config.people, config.clusters, -1).mean(axis=2)
    popular = np.where(new, journal.known.sum(axis=0), -1).argmax(axis=1)
    rows = np.flatnonzero(new.any(axis=1))
    tries, liked = journal.tries.sum(axis=1)
    facts = {
        "like_rate": float(liked / tries),
        "like_rate_random": float(likings.mean()),
        "gini_of_likes": float(gini(journal.ever.sum(axis=0))),
        "events": float(tries / config.people + config.elsewhere * config.past),
        "share_of_interests_known": float(journal.known.mean()),
        "popular_over_random": float(by_cluster[rows, popular[rows]].mean() - by_cluster[new].mean()),
    }
    missed = [name for name, (low, high) in BANDS.items() if not low <= facts[name] <= high]
    return facts, missed
