"""The second model changes an order among proposals, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound import schema
from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.planner.alignment import Alignment, fit_alignment
from newfound.transitions.artifact import Transitions


def test_rerank_by_hand() -> None:
    model = Alignment(np.array([0, 0, 0.5, -0.5], np.float32), np.zeros((1, 4, 4), np.float32), 1.0, "x")
    scores = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    # 0: -0.92, 1: -1.20, 2: -1.61 + 0.5 = -1.11, so 2 overtakes 1 and takes its value; 3 is no proposal.
    found = np.exp(model.rerank(scores, np.array([[3]]), proposals=3))
    np.testing.assert_allclose(found, [[0.4, 0.2, 0.3, 0.1]], rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), proposals=st.integers(1, 8), weight=st.floats(0, 5))
def test_rerank_permutes_the_proposals_alone(seed: int, proposals: int, weight: float) -> None:
    draw = np.random.default_rng(seed)
    level, pull = draw.normal(size=6), draw.normal(size=(2, 6, 6))
    model = Alignment(level.astype(np.float32), pull.astype(np.float32), weight, "x")
    scores = draw.normal(size=(3, 6)).astype(np.float32)
    scores[0, [1, 4]] = -np.inf
    contexts = draw.integers(0, 6, (3, 2))
    found = model.rerank(scores, contexts, proposals)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(scores, axis=1))
    assert np.isneginf(found[0, [1, 4]]).all()
    best = np.argsort(-scores, axis=1)[:, :proposals]
    for row in range(3):
        others = sorted(set(range(6)) - set(best[row].tolist()))
        np.testing.assert_array_equal(found[row, others], scores[row, others])
    if weight == 0:
        np.testing.assert_array_equal(found, scores)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_second_model_cannot_let_in_what_may_not_be_answered(broken: float) -> None:
    level = np.array([broken, 0, broken, 0.5], np.float32)
    for weight in (1.0, broken):
        model = Alignment(level, np.zeros((2, 4, 4), np.float32), weight, "x")
        scores = np.array([[-1.0, -np.inf, -2.0, -3.0]], np.float32)
        found = model.rerank(scores, np.array([[1, 1]]))
        assert np.isneginf(found[0, 1]) and sorted(found[0].tolist()) == sorted(scores[0].tolist())


def test_it_learns_what_is_not_enjoyed_after_an_interest(planner_world: Path, tmp_path: Path) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    table = pq.read_table(planner_world / "transitions" / "transitions.parquet").to_pandas()
    spoiled = (table[schema.NEXT] == "c4") & table[schema.CONTEXT].map(lambda c: c[1] == "c3")
    table[schema.ENGAGEMENT] = np.where(spoiled, -1.0, 1.0).astype(np.float32)
    mined = shutil.copytree(planner_world / "transitions", tmp_path / "t")
    rows = pa.Table.from_pandas(table, schema=schema.TRANSITIONS, preserve_index=False)
    pq.write_table(rows, mined / "transitions.parquet")

    def propose(contexts: np.ndarray) -> np.ndarray:
        scores = np.full((len(contexts), 8), np.log(0.1), dtype=np.float32)
        scores[:, 4] += 0.01
        return scores

    model, measures = fit_alignment(Transitions.load(mined, clusters), propose)
    after = model.expected_engagement(np.array([[0, 3], [0, 5]]))
    assert after[0, 4] < after[1, 4] - 0.2
    assert model.weight > 0 and measures["alignment_gain"] > 0
    assert measures["alignment_error"] < measures["alignment_error_without"]
    model.save(tmp_path / "a")
    again = Alignment.load(tmp_path / "a", clusters)
    np.testing.assert_array_equal(
        again.expected_engagement(np.array([[0, 3]])), model.expected_engagement(np.array([[0, 3]]))
    )
    again.clusters = "other"
    again.save(tmp_path / "b")
    with pytest.raises(VocabularyError, match="other clusters"):
        Alignment.load(tmp_path / "b", clusters)
    with pytest.raises(DataError, match="alignment model"):
        Alignment.load(tmp_path / "nowhere", clusters)
