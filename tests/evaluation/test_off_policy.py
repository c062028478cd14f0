"""Off-policy estimates against worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newfound.evaluation.off_policy import Estimate, doubly_robust, effective_sample_size, ips, snips, weights

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
