"""The planner's own interface: log-probabilities of all clusters, and refusals of what is no context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.planner.planner import Planner, planner_digest

Trained = tuple[Path, dict[str, object]]


@pytest.fixture(scope="module")
def planner(trained_planner: Trained, planner_world: Path) -> Planner:
    return Planner.load(trained_planner[0], Clusters.load(planner_world / "clusters"), precision="float32")


def test_unknown_clusters_and_empty_contexts_are_refused(planner: Planner) -> None:
    with pytest.raises(VocabularyError, match="'elsewhere'"):
        planner.top_k([("c0", "elsewhere")], 1)
    with pytest.raises(VocabularyError, match="at least one"):
        planner.top_k([()], 1)


def test_log_probs_are_a_distribution_over_what_is_new(planner: Planner) -> None:
    contexts = [("c0", "c3"), ("c6",), ("c1", "c4"), ("c0", "c3")]  # of different lengths, one twice
    found = planner.log_probs(contexts)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)
    assert [np.flatnonzero(np.isneginf(row)).tolist() for row in found] == [[0, 3], [6], [1, 4], [0, 3]]
    np.testing.assert_array_equal(found[0], found[3])
    best, values = planner.top_k(contexts, 3)
    np.testing.assert_array_equal(best, np.argsort(-found, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(values, np.take_along_axis(found, best, axis=1))
    few = np.zeros((4, 8), dtype=bool)
    few[:, 5] = True
    assert planner.top_k(contexts, 2, few)[0].tolist() == [[5, -1]] * 4


def test_states_at_hand_say_what_reading_says(planner: Planner) -> None:
    contexts = [("c0", "c3"), ("c7", "c2"), ("c5", "c1")]
    assert planner.has_read(contexts).all() and not planner.has_read([("c5",)]).any()
    np.testing.assert_allclose(planner.log_probs(contexts), planner.log_probs(contexts, anew=True), atol=1e-4)


def test_a_free_answer_is_an_interest_unless_a_word_is_likelier(planner: Planner) -> None:
    contexts = [("c0", "c3"), ("c7", "c2")]
    assert planner.match_rate(contexts) == 1
    head = planner.backbone.head
    word = head[5].clone()
    head[5] = torch.from_numpy(planner.rows).mean(0) + torch.from_numpy(planner.read([planner.codec.tokens((0, 3))]))[0]
    assert planner.match_rate(contexts) < 1
    head[5] = word


def test_a_folder_without_weights_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model"):
        planner_digest(tmp_path)
