"""The table: complete, resumable, and it tells how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.planner.planner import Planner
from newfound.table import TransitionTable, build_table, compare_tables
from newfound.table.answers import MainEffects

Trained = tuple[Path, dict[str, object]]


def test_it_holds_the_planners_log_probabilities_of_every_ordered_pair(
    table: Path, trained_planner: Trained, planner_world: Path, clusters: Clusters
) -> None:
    loaded = TransitionTable.load(table, clusters)
    assert len(loaded) == 8 * 7 and (loaded.size, loaded.source) == (2, "planner")
    planner = Planner.load(trained_planner[0], clusters, precision="float32")
    contexts = list(loaded.contexts())
    found, exact = loaded.log_probs(contexts), planner.log_probs(contexts, anew=True)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found, exact, atol=0.01)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)
    answers = loaded.successors(("c0", "c3"))
    assert answers is not None and len(answers) == 6 and {answer.source for answer in answers} == {"planner"}
    assert [answer.cluster for answer in answers[:1]] == [
        clusters.interface[exact[contexts.index(("c0", "c3"))].argmax()]
    ]
    missing = [("c0", "c0"), ("c0", "nowhere"), ("c0",), ()]
    assert np.isneginf(loaded.log_probs(missing)).all() and loaded.log_probs([]).shape == (0, 8)
    assert all(loaded.successors(context) is None and context not in loaded for context in missing)


def test_the_record_tells_how_it_came(table: Path) -> None:
    record = json.loads((table / "table.json").read_text())
    assert record["second_build"] == {
        "contexts": 16,
        "top1_agreement": 1.0,
        "largest_difference": pytest.approx(0, abs=5e-3),
    }
    assert record["engine"]["engine"] == "lean" and record["measures"]["contexts"] == record["asked"] == 56


def test_what_was_not_read_in_time_follows_from_what_was(
    trained_planner: Trained,
    planner_world: Path,
    tmp_path: Path,
    table: Path,
    clusters: Clusters,
    table_config: TableConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = TransitionTable.load(table, clusters)
    contexts = list(whole.contexts())
    had = Planner.has_read
    left = set(contexts[::9])
    monkeypatch.setattr(Planner, "has_read", lambda self, some: had(self, some) & [c not in left for c in some])
    config = table_config.model_copy(update={"minutes": 0.0, "second_build": 0})
    out = tmp_path / "t"
    measures = build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, out)
    assert measures["asked"] == 56 - len(left)
    found = TransitionTable.load(out, clusters)
    kept = [context for context in contexts if context not in left]
    np.testing.assert_array_equal(found.log_probs(kept), whole.log_probs(kept))
    guessed, exact = np.exp(found.log_probs(sorted(left))), np.exp(whole.log_probs(sorted(left)))
    uniform = np.where(exact > 0, 1 / 6, 0)
    assert np.abs(guessed - exact).mean() < 0.75 * np.abs(uniform - exact).mean()


def test_main_effects_give_additive_answers_back() -> None:
    draw = np.random.default_rng(0)
    bias, first, second = draw.normal(size=20), draw.normal(size=(20, 20)), draw.normal(size=(20, 20))
    contexts = np.array([(a, b) for a in range(20) for b in range(20) if a != b])
    logits = bias + first[contexts[:, 0]] + second[contexts[:, 1]]
    np.put_along_axis(logits, contexts, -np.inf, axis=1)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    asked = draw.random(len(contexts)) < 0.8
    found = np.exp(MainEffects(contexts[asked], log_probs[asked]).log_probs(contexts[~asked]))
    exact = np.exp(log_probs[~asked])
    assert np.abs(found - exact).sum(axis=1).mean() < 0.5 * np.abs(exact - exact.mean(axis=0)).sum(axis=1).mean()
    assert (found[exact == 0] == 0).all()


def test_a_refresh_is_fitted_to_recent_choices(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path, table_config: TableConfig
) -> None:
    config = table_config.model_copy(update={"recent": 0.5})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    diff = compare_tables(table, tmp_path / "t")
    assert diff.contexts == 56 and 0.5 < diff.successor_jaccard < 1
