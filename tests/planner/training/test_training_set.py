"""The training set holds what may be learned from, and hands it out in batches that share what they can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.config import PlannerConfig
from newfound.planner.training.training_set import NO_HINT, TrainingSet, draw_batches, read_training_set
from newfound.transitions.artifact import Transitions


def test_it_leaves_out_other_users_and_withheld_contexts(planner_world: Path, planner_config: PlannerConfig) -> None:
    transitions = Transitions.load(planner_world / "transitions", Clusters.load(planner_world / "clusters"))
    data = read_training_set(transitions, planner_config.finetune, 0)
    assert not any({6, 7} == set(context) for context in data.contexts.tolist())
    np.testing.assert_allclose(data.targets.sum(1), 1, atol=1e-5)
    for context, target in zip(data.contexts, data.targets, strict=True):
        assert target[context].max() == 0  # what a person knows is never next
    choices = transitions.choices()
    assert not choices.known[np.arange(len(choices)), choices.labels].any()


def test_batches_share_first_interests_and_repeat_by_seed(planner_world: Path, planner_config: PlannerConfig) -> None:
    transitions = Transitions.load(planner_world / "transitions", Clusters.load(planner_world / "clusters"))
    data = read_training_set(transitions, planner_config.finetune, 0)
    first, again, other = (draw_batches(data, 16, 4, seed) for seed in (1, 1, 2))
    batches = [next(first) for _ in range(5)]
    assert all(len(batch) == 16 for batch in batches)
    assert max(len(set(data.contexts[batch, 0].tolist())) for batch in batches) < 16
    assert [b.tolist() for b in batches] == [next(again).tolist() for _ in range(5)]
    assert batches[0].tolist() != next(other).tolist()


def test_a_boost_multiplies_the_odds_of_the_hinted_cluster() -> None:
    targets = np.array([[0.0, 0.2, 0.3, 0.5], [0.0, 0.2, 0.3, 0.5]], np.float32)
    data = TrainingSet(np.zeros((2, 1), np.int64), np.ones(2, np.float32), targets.copy(), hint_boost=float(np.log(4)))
    found = data.hinted_targets(np.array([0, 1]), np.array([1, NO_HINT]))
    np.testing.assert_allclose(found[0], [0.0, 0.5, 0.1875, 0.3125], rtol=1e-6)  # odds of 1 to 4 become 1 to 1
    np.testing.assert_array_equal(found[1], targets[1])
    np.testing.assert_array_equal(data.targets, targets)


def test_successors_are_drawn_by_half_from_the_distribution_and_by_half_from_all_that_are_new() -> None:
    targets = np.array([[0.0, 0.9, 0.1, 0.0]], np.float32)
    data, rng = TrainingSet(np.zeros((1, 1), np.int64), np.ones(1, np.float32), targets), np.random.default_rng(0)
    drawn = np.bincount([data.draw_successor(0, rng) for _ in range(4000)], minlength=4) / 4000
    assert drawn[0] == drawn[3] == 0 and drawn[1] == pytest.approx(0.7, abs=0.03)
