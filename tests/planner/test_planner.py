"""The planner's own interface: what it is given is refused where it is no context of its clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    with pytest.raises(VocabularyError, match="'elsewhere'"):
        planner.top_k([("c0", "c1")], 1, hints=["elsewhere"])
    with pytest.raises(VocabularyError, match="at least one"):
        planner.top_k([()], 1)


def test_scores_are_exact_where_they_say_so_and_bounds_elsewhere(planner: Planner) -> None:
    contexts = [("c0", "c3"), ("c6",), ("c1", "c4")]  # of different lengths
    true = planner.scores(contexts, exhaustive=True)
    some, quick = planner.scores(contexts, exact=3), planner.scores(contexts)
    best = np.argsort(-true, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(np.take_along_axis(some, best, 1), np.take_along_axis(true, best, 1), atol=1e-3)
    assert (some >= true - 1e-3).all() and (quick >= true - 1e-3).all()


def test_a_folder_without_weights_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model"):
        planner_digest(tmp_path)
