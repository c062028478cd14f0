"""Off-policy estimates against worlds whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newfound.evaluation.off_policy import (
    Estimate,
    along_slates,
    at_temperature,
    doubly_robust,
    effective_sample_size,
    ips,
    snips,
    weights,
)
from newfound.recommend.slate import Offer, Plan, compose

ACTIONS = 12


class _World:
    """Contexts with their own mean rewards; the logging policy prefers other actions than the target does."""

    def __init__(self, slots: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        contexts = 20
        self.reward = rng.beta(1, 3, (contexts, ACTIONS))
        logging = rng.dirichlet(np.ones(ACTIONS), contexts) * 0.9 + 0.1 / ACTIONS  # support everywhere
        target = np.exp(5 * self.reward)
        self.target = target / target.sum(axis=1, keepdims=True)
        self.context = rng.integers(0, contexts, slots)
        cumulative = logging[self.context].cumsum(axis=1)
        self.action = (rng.random(slots)[:, None] > cumulative).sum(axis=1).clip(max=ACTIONS - 1)
        self.propensities = logging[self.context, self.action]
        self.rewards = (rng.random(slots) < self.reward[self.context, self.action]).astype(float)
        self.truth = float((self.target * self.reward).sum(axis=1)[self.context].mean())
        self.logged = self.target[self.context, self.action]

    def dr(self, model: np.ndarray) -> Estimate:
        predicted = model[self.context, self.action]
        expected = (self.target * model).sum(axis=1)[self.context]
        return doubly_robust(self.rewards, self.logged, self.propensities, predicted, expected)


@pytest.fixture(scope="module")
def world() -> _World:
    return _World(60_000, seed=3)


def test_every_estimator_recovers_the_truth(world: _World) -> None:
    rough = np.clip(world.reward + np.random.default_rng(0).normal(0, 0.1, world.reward.shape), 0, 1)
    naive = world.rewards.mean()
    assert abs(naive - world.truth) > 0.1, "the logged mean must be far off, or nothing is shown"
    estimates = {
        "ips": ips(world.rewards, world.logged, world.propensities),
        "snips": snips(world.rewards, world.logged, world.propensities),
        "dr": world.dr(rough),
    }
    for name, estimate in estimates.items():
        assert abs(estimate.value - world.truth) < 4 * estimate.standard_error, name
        assert estimate.standard_error < 0.02, name
    assert estimates["dr"].standard_error < estimates["ips"].standard_error


def test_the_intervals_hold_what_they_promise() -> None:
    inside = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(100):
        world = _World(2000, seed)
        for name, estimate in (
            ("ips", ips(world.rewards, world.logged, world.propensities)),
            ("snips", snips(world.rewards, world.logged, world.propensities)),
            ("dr", world.dr(np.full_like(world.reward, 0.3))),
        ):
            inside[name] += abs(estimate.value - world.truth) < 1.96 * estimate.standard_error
    assert all(88 <= count <= 100 for count in inside.values()), inside


def test_doubly_robust_forgives_either_error(world: _World) -> None:
    wrong_model = world.dr(np.full_like(world.reward, 0.9))
    assert abs(wrong_model.value - world.truth) < 4 * wrong_model.standard_error
    predicted = world.reward[world.context, world.action]
    expected = (world.target * world.reward).sum(axis=1)[world.context]
    wrong_propensities = np.full_like(world.propensities, 1 / ACTIONS)
    forgiven = doubly_robust(world.rewards, world.logged, wrong_propensities, predicted, expected)
    assert abs(forgiven.value - world.truth) < 0.01
    assert abs(ips(world.rewards, world.logged, wrong_propensities).value - world.truth) > 0.02


def test_hand_computed() -> None:
    rewards, target, propensities = np.array([1.0, 0.0, 1.0]), np.array([0.2, 0.5, 0.1]), np.array([0.1, 0.5, 0.4])
    estimate = ips(rewards, target, propensities)  # weights 2, 1, .25
    assert estimate.value == pytest.approx(2.25 / 3)
    assert estimate.effective_sample_size == pytest.approx(3.25**2 / (4 + 1 + 0.0625))
    terms = np.array([2, 0, 0.25])
    assert estimate.standard_error == pytest.approx(terms.std(ddof=1) / np.sqrt(3))
    assert snips(rewards, target, propensities).value == pytest.approx(2.25 / 3.25)
    clipped = ips(rewards, target, propensities, clip=1.0)
    assert clipped.value == pytest.approx(1.25 / 3) and clipped.clipped == pytest.approx(1 / 3)


def test_slots_of_a_slate_are_one_observation() -> None:
    rng = np.random.default_rng(5)
    slates = np.repeat(np.arange(300), 10)
    rewards = np.repeat((rng.random(300) < 0.4).astype(float), 10)  # a whole slate is liked or not
    ones = np.ones(len(rewards))
    alone = ips(rewards, ones, ones)
    together = ips(rewards, ones, ones, groups=slates)
    assert together.value == alone.value
    assert together.standard_error == pytest.approx(alone.standard_error * np.sqrt(10), rel=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=50))
def test_snips_stays_among_the_rewards(rows: list[tuple[float, float]]) -> None:
    rewards, propensities = (np.array(column) for column in zip(*rows, strict=True))
    estimate = snips(rewards, np.full(len(rows), 0.5), propensities)
    assert rewards.min() - 1e-9 <= estimate.value <= rewards.max() + 1e-9
    assert 0 < estimate.effective_sample_size <= len(rows) + 1e-9
    on_policy = ips(rewards, propensities, propensities)
    assert on_policy.value == pytest.approx(rewards.mean())


def test_no_support_is_an_error_and_nothing_logged_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="propensities"):
        weights(np.array([0.5]), np.array([0.0]))
    with pytest.raises(ValueError, match="target"):
        weights(np.array([1.5]), np.array([0.5]))
    empty = np.zeros(0)
    assert np.isnan(ips(empty, empty, empty).value) and np.isnan(snips(empty, empty, empty).value)
    assert effective_sample_size(np.zeros(3)) == 0


def test_intervals_of_another_temperature_cover_its_true_value() -> None:
    """Slates drawn by the code that serves; of 200 logs, a 95 % interval misses the truth in about 10."""
    clusters, slots, slates, repetitions = "uvwxyz", 2, 250, 200
    utility = dict(zip(clusters, (1.0, 0.7, 0.4, 0.0, -0.5, -1.0), strict=True))
    liked = dict(zip(clusters, (0.2, 0.5, 0.3, 0.6, 0.1, 0.4), strict=True))
    shortlist = [(f"{cluster}{at}", utility[cluster] - 0.6 * at) for cluster in clusters for at in range(3)]
    shortlist.sort(key=lambda one: -one[1])
    cluster_of = {item: item[0] for item, _ in shortlist}
    logged, other = (
        Plan(slots, dict.fromkeys(clusters, 0.0), [None] * slots, [], [], 0.0, temperature)
        for temperature in (0.5, 0.35)
    )
    truth = _true_value(other, shortlist, cluster_of, liked)
    rng = np.random.default_rng(17)
    covered = 0
    for repetition in range(repetitions):
        rewards, target, logging, groups = [], [], [], []
        for slate in range(slates):
            plan = replace(logged, noise=repetition * slates + slate)
            for placed in compose(plan, Offer(shortlist, {}), cluster_of, {}, ()):
                assert placed.candidates is not None
                rewards.append(float(rng.random() < liked[placed.cluster]))
                target.append(at_temperature(placed.candidates, placed.floor, 0.5 / 0.35)[placed.cluster])
                logging.append(placed.propensity)
                groups.append(slate)
        slate_of = np.array(groups)
        found = ips(
            np.array(rewards),
            along_slates(np.array(target), slate_of),
            along_slates(np.array(logging), slate_of),
            groups=slate_of,
        )
        covered += abs(found.value - truth) <= 1.96 * found.standard_error
    assert 0.92 <= covered / repetitions <= 0.98


def _true_value(
    plan: Plan, shortlist: list[tuple[str, float]], cluster_of: dict[str, str], liked: dict[str, float]
) -> float:
    """Mean reward a slot, over all ways in which a slate can come about."""

    def of(shown: tuple[str, ...]) -> float:
        if len(shown) == len(plan.explored):
            return 0.0
        left = [(item, u) for item, u in shortlist if item not in shown]
        heads: dict[str, tuple[str, float]] = {}
        for item, u in left:
            heads.setdefault(cluster_of[item], (item, u))
        rates = {cluster: np.exp(u / plan.temperature) for cluster, (_, u) in heads.items()}
        total = sum(rates.values())
        return float(sum(rate / total * (liked[c] + of((*shown, heads[c][0]))) for c, rate in rates.items()))

    return of(()) / len(plan.explored)
