"""Slots: who wins the race and with which probability, what exploration and near-duplicates do, what a reason says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newfound.recommend.policy import Kind, Reason
from newfound.recommend.slate import Offer, Placed, Plan, PlannerSay, compose

CLUSTER_OF = {f"{cluster}{at}": cluster for cluster in "abcdxyz" for at in range(6)}


def plan(novel: int, **changes: object) -> Plan:
    """Nothing but novel slots, over clusters x, y and z."""
    start = Plan(novel, dict.fromkeys("xyz", 0.0), [None] * novel, [], [], 0.0, 1.0)
    return replace(start, **changes)  # type: ignore[arg-type]


def shown(plan: Plan, offer: Offer, twins: dict[str, str] | None = None, spare=()) -> list[Placed]:
    return compose(plan, offer, CLUSTER_OF, twins or {}, spare)


SHORTLIST = [("x0", 2.0), ("y0", 1.5), ("x1", 1.0), ("z0", 0.5), ("y1", 0.0)]


def test_the_coldest_slate_is_the_order_of_the_utilities():
    placed = shown(plan(5, temperature=0.01), Offer(SHORTLIST, {}))
    assert [entry.item for entry in placed] == ["x0", "y0", "x1", "z0", "y1"]
    assert all(entry.propensity == pytest.approx(1.0) for entry in placed)


def test_propensity_of_every_slot_by_hand():
    placed = shown(plan(2, exploration=0.2), Offer(SHORTLIST, {}))
    rates = {"x": math.exp(2.0), "y": math.exp(1.5), "z": math.exp(0.5)}
    total = sum(rates.values())
    expected = {cluster: 0.8 * rate / total + 0.2 / 3 for cluster, rate in rates.items()}
    assert placed[0].candidates == pytest.approx(expected)
    after = {"x": {"x": 1.0}, "y": {"y": 0.0}, "z": {}}[placed[0].cluster]
    heads = {"x": 2.0, "y": 1.5, "z": 0.5} | after
    if placed[0].cluster == "z":
        heads.pop("z")
    total = sum(map(math.exp, heads.values()))
    assert placed[1].candidates == pytest.approx({c: 0.8 * math.exp(u) / total + 0.2 / 3 for c, u in heads.items()})
    assert placed[1].propensity == placed[1].candidates[placed[1].cluster] and placed[1].eligible == 3


def test_slates_are_drawn_as_often_as_their_propensities_say():
    rounds, drawn, told = 6000, Counter(), {}
    for noise in range(rounds):
        placed = shown(plan(3, noise=noise), Offer(SHORTLIST, {}))
        slate = tuple(entry.item for entry in placed)
        drawn[slate] += 1
        told[slate] = math.prod(entry.propensity for entry in placed)
    assert sum(told.values()) == pytest.approx(1.0, abs=0.02)
    for slate, probability in told.items():
        assert drawn[slate] / rounds == pytest.approx(probability, abs=4 * math.sqrt(probability / rounds) + 1e-3)


@given(
    utilities=st.lists(st.floats(-30, 30), min_size=1, max_size=12),
    temperature=st.floats(0.01, 5),
    exploration=st.floats(0, 1),
    slots=st.integers(1, 6),
    clusters=st.integers(1, 3),
    noise=st.integers(0, 2**32),
)
def test_probabilities_are_probabilities(utilities, temperature, exploration, slots, clusters, noise):
    """Of one eligible cluster as well: no rounding may bring its probability above 1, which no collector takes."""
    names = "xyz"[:clusters]
    items = [f"{names[at % clusters]}{at // clusters}" for at in range(min(len(utilities), 6 * clusters))]
    utilities = utilities[: len(items)]
    shortlist = sorted(zip(items, utilities, strict=True), key=lambda one: -one[1])
    drawn = plan(
        slots, temperature=temperature, exploration=exploration, noise=noise, offsets=dict.fromkeys(names, 0.0)
    )
    placed = shown(drawn, Offer(shortlist, {}))
    assert len({entry.item for entry in placed}) == len(placed) == min(slots, len(shortlist))
    for entry in placed:
        assert 0 <= entry.propensity <= 1 and entry.floor == pytest.approx(exploration / clusters)
        assert all(0 <= one <= 1 for one in entry.candidates.values())
        assert math.fsum(entry.candidates.values()) + entry.floor * (clusters - len(entry.candidates)) <= 1 + 1e-6


def test_what_exploration_drew_is_shown_with_its_probability():
    offer = Offer(SHORTLIST, {"z": [("z0", 0.5), ("z1", -3.0)]})
    placed = shown(plan(2, explored=["z", "z"], exploration=0.3), offer)
    assert [entry.item for entry in placed] == ["z0", "z1"]
    assert {entry.reason for entry in placed} == {Reason.EXPLORATION}
    assert placed[1].propensity == pytest.approx(0.1), "z has nothing left on the shortlist"


def test_exploration_shows_new_items_half_of_the_time_and_nothing_else_does():
    offer = Offer(SHORTLIST, {"z": [("z0", 0.5), ("z1", 0.2), ("z4", -3.0), ("z5", -4.0)]})
    new, drawn = frozenset({"z4", "z5", "x0"}), Counter()
    for noise in range(600):
        asked = plan(2, explored=["z", None], exploration=0.5, noise=noise)
        first, second = compose(asked, offer, CLUSTER_OF, {}, (), new)
        plain, _ = shown(asked, offer)
        assert (first.reason, first.propensity, first.candidates) == (plain.reason, plain.propensity, plain.candidates)
        assert plain.item == "z0" and second.item in ("x0", "y0", "z0"), "a decided slot is decided as ever"
        drawn[first.item] += 1
    assert set(drawn) == {"z0", "z4", "z5"}
    assert drawn["z0"] / 600 == pytest.approx(0.5, abs=0.1) and drawn["z4"] / 600 == pytest.approx(0.25, abs=0.1)
    (gone,) = compose(plan(1, explored=["z"]), replace(offer, clusters={"z": [("z0", 0.5)]}), CLUSTER_OF, {}, (), new)
    assert gone.item == "z0", "an interest without new items shows its best"
    twins = {"z4": "z0", "z0": "z0", "z5": "z0"}
    for noise in range(20):
        found = compose(plan(2, explored=["z", "z"], noise=noise), offer, CLUSTER_OF, twins, (), new)
        assert {entry.item for entry in found} in ({"z0", "z1"}, {"z4", "z1"}, {"z5", "z1"})


def test_a_reason_names_the_interests_only_where_the_planner_made_the_difference():
    say = PlannerSay(Reason.TABLE, {"z": 4.0}, {"z": ("a", "b"), "x": ("a", "c")})
    cold = plan(1, temperature=0.01)
    (alone,) = shown(cold, Offer(SHORTLIST, {}))
    assert alone.reason is Reason.RANKER and alone.context == ()
    helped = [("z0", 4.5), ("x0", 2.0), ("y0", 1.5)]
    (first,) = shown(replace(cold, planner=say), Offer(helped, {}))
    assert (first.item, first.reason, first.context) == ("z0", Reason.TABLE, ("a", "b"))
    (first,) = shown(replace(cold, planner=replace(say, gain={"x": 0.1})), Offer(helped, {}))
    assert (first.item, first.reason, first.context) == ("z0", Reason.RANKER, ()), "it would be there anyhow"
    (first,) = shown(cold, Offer(helped, {}, ranked=False))
    assert first.reason is Reason.POPULAR


def test_near_duplicates_are_kept_apart():
    mixed = Plan(3, {"x": 0.0}, [None], ["a"], [None, None], 0.0, 1.0)
    offer = Offer([("x1", 9.0), ("x2", 8.0)], {"a": [("a1", 3.0), ("a2", 2.5), ("a3", 2.0)]})
    placed = shown(mixed, offer, {"a1": "g", "x1": "g", "a2": "h", "a3": "h"}, [("s", 0.0, "y", Kind.FAMILIAR)])
    assert [entry.item for entry in placed] == ["a1", "x2", "a2"]


def test_an_explored_slot_shows_a_near_duplicate_rather_than_nothing():
    mixed = Plan(2, {"x": 0.0}, ["x"], ["a"], [None], 0.5, 1.0)
    placed = shown(mixed, Offer([], {"x": [("x1", 9.0)], "a": [("a1", 3.0)]}), {"a1": "g", "x1": "g"})
    assert [entry.item for entry in placed] == ["a1", "x1"]


def test_holes_are_filled_and_said_not_to_be_random():
    mixed = Plan(3, {"x": 0.0}, [None, None], [], [None], 0.05, 1.0)
    spare = [("x1", 0.0, "x", Kind.NOVEL), ("y1", 0.0, "y", Kind.NOVEL)]
    placed = shown(mixed, Offer([("x1", 9.0)], {}), spare=spare)
    assert [(entry.item, entry.reason) for entry in placed] == [("x1", Reason.RANKER), ("y1", Reason.POPULAR)]
    assert placed[1].candidates is None and placed[1].propensity == 1


def test_familiar_slots_take_the_best_of_all_interests_or_of_the_one_drawn():
    ranked = {"a": [("a1", 5.0), ("a2", 1.0)], "b": [("b1", 4.0)]}
    placed = shown(Plan(3, {}, [], ["a", "b", "e"], [None, "b", "e"], 0.3, 1.0), Offer([], ranked))
    assert [(entry.item, entry.reason) for entry in placed] == [
        ("a1", Reason.FAMILIAR),
        ("b1", Reason.EXPLORATION),
        ("a2", Reason.FAMILIAR),
    ]
    # a1: best unless exploration drew b; e has nothing, so drawing it shows the best as well.
    assert placed[0].propensity == pytest.approx(0.7 + 0.3 * 2 / 3)
    assert placed[1].propensity == pytest.approx(0.7 + 0.3 * 2 / 3), "b1 is the best of what is left"


def test_the_same_noise_draws_the_same_slate():
    first, second = (shown(plan(4, noise=5), Offer(SHORTLIST, {})) for _ in range(2))
    assert first == second and np.isfinite([entry.score for entry in first]).all()
