"""Simulated clients: what they like is known, and what they do follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from newfound.errors import ConfigError
from newfound.simulation import Drift, Population, Shown

CLUSTERS = [f"c{n}" for n in range(20)]
PASTS = {f"u{n}": [f"c{n % 5}", f"c{(n + 1) % 5}"] for n in range(40)}


def population(seed: int = 1) -> Population:
    return Population(PASTS, CLUSTERS, seed=seed)


def rate(people: Population, pick: dict[str, list[str]]) -> float:
    """Share of looked-at slots that were watched well, over many slates of the picked clusters."""
    shown = good = 0
    for user in people.users:
        for slate in range(20):
            slots = [Shown(place, f"i{place}", cluster) for place, cluster in enumerate(pick[user])]
            done = people.respond(user, f"{user}-{slate}", slots)
            shown += sum(response.kind == "shown" for response in done)
            good += sum(response.kind == "watched" and (response.share or 0) >= 0.6 for response in done)
    return good / shown


def test_the_same_seed_is_the_same_world() -> None:
    slots = [Shown(place, f"i{place}", cluster) for place, cluster in enumerate(CLUSTERS[:10])]
    assert population().respond("u1", "r", slots) == population().respond("u1", "r", slots)
    assert np.array_equal(population().affinity, population().affinity)
    assert not np.array_equal(population(1).affinity, population(2).affinity)
    assert population().respond("u1", "r", slots) != population().respond("u1", "s", slots)


def test_responses_follow_the_known_tastes() -> None:
    people = population()
    latent = rate(people, people.latent)
    truth = np.mean([people.expected(user, cluster) for user in people.users for cluster in people.latent[user]])
    strange = rate(people, {u: [c for c in CLUSTERS[5:] if c not in people.latent[u]][:5] for u in people.users})
    assert latent == pytest.approx(truth, abs=0.02)
    assert strange < 0.2 < 0.5 < latent


def test_latent_interests_are_new_and_come_from_successors() -> None:
    people = Population(PASTS, CLUSTERS, seed=3, latent=2, successors={c: ["c17", "c18", "c19"] for c in CLUSTERS[:5]})
    for user in people.users:
        assert not set(people.latent[user]) & set(PASTS[user])
        assert set(people.latent[user]) <= {"c17", "c18", "c19"}


def test_drift_moves_what_is_liked() -> None:
    now = Drift(share=1.0, successors={c: [f"c{n}" for n in range(7, 20)] for c in CLUSTERS[:5]})
    people = population()
    before = {user: list(chosen) for user, chosen in people.latent.items()}
    people.drift(now)
    assert rate(people, before) < 0.35
    assert rate(people, people.latent) > 0.5
    for user in people.users:
        assert not set(people.latent[user]) & {*before[user], *people.familiar[user]}
        assert set(people.latent[user]) <= set(CLUSTERS[7:])
    again = population()
    again.drift(now)
    assert np.array_equal(people.affinity, again.affinity)


def test_wandering_leads_to_what_is_liked() -> None:
    people = population()
    assert people.wander("u1", "monday", 3) == people.wander("u1", "monday", 3)
    assert people.wander("u1", "monday", 3) != people.wander("u1", "tuesday", 3)
    gone = [c for user in people.users for day in range(10) for c in people.wander(user, str(day), 3)]
    assert len(gone) == len(people.users) * 30
    liked = [
        people.expected(user, cluster)
        for user in people.users
        for day in range(10)
        for cluster in people.wander(user, str(day), 3)
    ]
    assert np.mean(liked) > 0.5


def test_feedback_is_in_order_and_complete() -> None:
    done = population().respond("u0", "r", [Shown(place, f"i{place}", "c0") for place in range(10)])
    assert [response.delay for response in done] == sorted(response.delay for response in done)
    assert all((response.share is None) == (response.kind != "watched") for response in done)
    seen = {response.item for response in done if response.kind == "shown"}
    assert {response.item for response in done} == seen


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(ConfigError, match="no clients"):
        Population({}, CLUSTERS, seed=0)
    with pytest.raises(ConfigError, match="latent"):
        Population(PASTS, CLUSTERS[:3], seed=0)
