"""newfound's arm decides as serving does: its forms for many people at once against the library's own for one."""

from __future__ import annotations

import numpy as np

from newfound.recommend.nested_logit import Coefficients, joint_utilities, pooled
from newfound.simulation.arms import pool_pairs
from newfound.simulation.joint_arm import joint_of_all
from newfound.simulation.journal import contexts_of


def test_joint_utilities_of_many_people_are_those_of_each() -> None:
    rng = np.random.default_rng(1)
    people, nests, size = 5, 4, 3
    weights = Coefficients(items={"ranker": 0.7, "popularity": 0.2}, clusters={"planner": 0.5}, dissimilarity=0.6)
    items = {name: rng.standard_normal((people, nests * size)).astype(np.float32) for name in weights.items}
    clusters = {"planner": rng.standard_normal((people, nests)).astype(np.float32)}
    exists = np.ones((nests, size), dtype=bool)
    exists[1, 2] = False
    found = joint_of_all(items, clusters, weights, exists)
    for row in range(people):
        utility = sum(np.float32(w) * items[name][row] for name, w in weights.items.items())
        utility[~exists.reshape(-1)] = -np.inf
        offsets = weights.offsets({"planner": clusters["planner"][row]})
        expected = joint_utilities(utility, np.arange(nests + 1) * size, offsets, 0.6)
        assert np.allclose(found[row], expected, atol=1e-5)


def test_pooling_of_many_people_is_that_of_each() -> None:
    rng = np.random.default_rng(2)
    table = np.log(rng.dirichlet(np.ones(6), (6, 6))).astype(np.float32)
    recent = np.array([[0, 3, 2, -1], [5, 1, -1, -1]])
    allowed = rng.random((2, 6)) < 0.7
    found = pool_pairs(table, recent, allowed)
    pairs, weights = contexts_of(recent)
    for row in range(2):
        rows = table[pairs[row, :, 0], pairs[row, :, 1]]
        assert np.allclose(found[row], pooled(rows, weights[row], allowed[row]), atol=1e-5)


def test_contexts_hold_the_older_interest_first_and_recent_pairs_weigh_most() -> None:
    pairs, weights = contexts_of(np.array([[7, 4, 1]]))
    assert pairs[0].tolist() == [[4, 7], [1, 7], [1, 4]]
    assert weights[0, 0] > weights[0, 1] > weights[0, 2] > 0
