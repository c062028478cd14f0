"""Worlds: the same chance for every arm, and each hidden mechanism does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from newfound.errors import ConfigError
from newfound.simulation.world import World
from newfound.simulation.world_config import WorldConfig

SMALL = WorldConfig(people=60, themes=4, facets=3, items=3, past=5)


def changed(**options: object) -> WorldConfig:
    return SMALL.model_copy(update=options)


def slates(world: World, items: list[int]) -> np.ndarray:
    return np.tile(np.array(items), (world.config.people, 1))


@pytest.mark.parametrize("family", ["latent", "low_rank", "neighbourhood"])
def test_the_same_seed_makes_the_same_people_and_another_makes_others(family: str) -> None:
    one, same, other = (World(changed(family=family), seed) for seed in (1, 1, 2))
    assert np.array_equal(one.likings(), same.likings())
    assert not np.array_equal(one.likings(), other.likings())
    for first, second in zip(one.first_log(), same.first_log(), strict=True):
        assert np.array_equal(first, second)


def test_chance_does_not_depend_on_what_was_shown() -> None:
    one, other = World(SMALL, 1), World(SMALL, 1)
    there = np.ones(SMALL.people, dtype=bool)
    one.react(0, slates(one, [0, 4]), there)
    other.react(0, slates(other, [8, 9]), there)
    seen = one.react(1, slates(one, [1, 5]), there).seen
    assert np.array_equal(seen, other.react(1, slates(other, [1, 5]), there).seen)


def test_satiation_and_boredom_make_what_was_just_enjoyed_less_likely_and_fade() -> None:
    world = World(changed(satiation=0.5, boredom=0.05), 1)
    before = world.likings()[:, 0].copy()
    there = np.ones(SMALL.people, dtype=bool)
    did = world.react(0, slates(world, [0]), there)
    glad = did.liked[:, 0]
    tired = world.likings()[:, 0].copy()
    assert glad.any() and (tired[glad] < before[glad]).all() and np.allclose(tired[~glad], before[~glad])
    for _ in range(20):
        world.end_day(did, there)
    rested = glad & ~world.dormant[:, 0]
    assert (world.likings()[rested, 0] > tired[rested]).all()


def test_later_slots_are_looked_at_less() -> None:
    world = World(changed(people=2000, looks=0.8), 1)
    seen = world.react(0, slates(world, [0, 3, 6, 9]), np.ones(2000, dtype=bool)).seen.mean(axis=0)
    assert seen[0] == 1.0 and (np.diff(seen) < 0).all() and abs(seen[3] - 0.8**3) < 0.05


def test_a_dormant_taste_awakes_when_it_is_met_and_opens_others() -> None:
    world = World(changed(dormant=1.0, kinship=0.0, satiation=0.0, boredom=0.0), 3)
    there = np.ones(SMALL.people, dtype=bool)
    awake, dormant = world.is_awake.sum(), world.dormant.copy()
    assert dormant.any()
    best = dormant.argmax(axis=1)
    items = (best * SMALL.items)[:, None]
    did = world.react(0, items, there)
    world.end_day(did, there)
    woken = did.liked[:, 0] & dormant[np.arange(SMALL.people), best]
    assert woken.any() and world.is_awake.sum() == awake + woken.sum()
    assert world.is_awake[np.flatnonzero(woken), best[woken]].all()
    assert (world.dormant & ~dormant).any()


def test_without_dormant_tastes_nothing_awakes() -> None:
    world = World(changed(dormant=0.0), 3)
    world.first_log()
    assert not world.dormant.any()


def test_people_come_back_more_after_a_varied_day() -> None:
    config = changed(people=3000, variety=1.5, satiation=0.0, boredom=0.0)
    rates = []
    # The same six interests on both sides, so that none is merely better liked: all in one slate, or each in its own.
    uniform = [[first, first + 1, first + 2] * 2 for first in range(0, 18, 3)]
    for items in ([0, 3, 6, 9, 12, 15], *uniform):
        world = World(config, 1)
        there = np.ones(3000, dtype=bool)
        for day in range(3):
            world.end_day(world.react(day, slates(world, items), there), there)
        rates.append(world.present(4).mean())
    assert rates[0] > np.mean(rates[1:])


def test_too_few_interests_and_unknown_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="12 interests"):
        World(changed(awake=12), 1)
