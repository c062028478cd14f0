"""The training set holds what may be learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from newfound.clusters import Clusters
from newfound.config import PlannerConfig
from newfound.planner.training.training_set import read_training_set
from newfound.transitions.artifact import Transitions


def test_it_leaves_out_other_users_and_withheld_contexts(planner_world: Path, planner_config: PlannerConfig) -> None:
    transitions = Transitions.load(planner_world / "transitions", Clusters.load(planner_world / "clusters"))
    data = read_training_set(transitions, planner_config.finetune, 0)
    contexts = np.array([[6, 7], [0, 3], [7, 6], [3, 0]])
    assert data.may_learn(contexts).tolist() == [False, True, False, True]
    counts = data.counts(contexts)
    choices = transitions.choices()
    assert not counts[[0, 2]].any() and counts[1].sum() == (choices.contexts == [0, 3]).all(axis=1).sum() > 0
    assert not choices.known[np.arange(len(choices)), choices.labels].any()
    np.testing.assert_allclose(data.teacher.distribution(contexts).sum(1), 1, atol=1e-5)
