"""The small experiment: a planner that knows people is told from one that does not, and both halves are answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.run_experiment import run_experiment as component
from newfound.clusters import Clusters
from newfound.config import DataConfig, EvaluationConfig, PolicyConfig, SplitConfig, TrainingConfig, TransitionsConfig
from newfound.datasets import load_interactions
from newfound.evaluation.moments import read_journeys
from newfound.gates import release_flags
from newfound.schema import GROUPS
from newfound.simulation.small_experiment import RECORD, people_of, rounds_of, run_experiment
from newfound.table.build import write_table
from newfound.transitions.mine import mine_transitions
from tests.conftest import fetch_past
from tests.transitions.conftest import write_clusters

INTERESTS = "ABCDEFGHIJKL"
PEOPLE = 60


def _write_people(folder: Path, disliked: float) -> dict[str, Path]:
    """People who liked C, D, A, B and then come to like E; and as many who liked A, B, C, D and come to like K.

    Each of them meets the other's new interest too, with an engagement of `disliked`. The log before the cut knows
    nothing of E to L, so pair frequency offers the first of them to everybody.
    """
    rows = []
    for person in range(PEOPLE):
        old, new = ("CDAB", "EK") if person % 2 else ("ABCD", "KE")
        walk = [*(f"{one}{turn}" for turn in range(2) for one in old), f"{new[0]}0", f"{new[1]}0"]
        engagements = [1.0] * 9 + [disliked]
        rows += [(f"u{person}", item, at, value) for at, (item, value) in enumerate(zip(walk, engagements))]  # noqa: B905
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "engagement"])
    folder.mkdir(parents=True)
    events.to_parquet(folder / "events.parquet")
    data = DataConfig(loader="files", interactions=str(folder / "events.parquet"))
    load_interactions(data, SplitConfig(), 3, folder / "dataset")
    clusters = write_clusters(folder / "clusters", {one: [f"{one}{item}" for item in range(2)] for one in INTERESTS})
    histories = fetch_past(folder / "dataset", folder / "histories.parquet")
    config = TransitionsConfig(held_out_pairs=0.0)
    mine_transitions(histories, folder / "dataset", clusters, config, 3, folder / "transitions")
    return {name: folder / name for name in ("dataset", "clusters", "transitions")}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return _write_people(tmp_path_factory.mktemp("people") / "run", disliked=0.0)


def _write_table(folder: Path, clusters: Path, answer: Callable[[str, str], str], source: str = "planner") -> Path:
    """A table that gives nearly all to one interest after each pair, and to all alike where the answer is empty."""
    tree = Clusters.load(clusters)
    pairs = np.array(list(permutations(range(len(tree.interface)), 2)), dtype=np.int32)
    chances = np.ones((len(pairs), len(tree.interface)))
    for row, (older, newer) in enumerate(pairs.tolist()):
        for at, told in enumerate(answer(tree.interface[older], tree.interface[newer])):
            chances[row, tree.index[told]] = 10.0 ** (6 - at)
        chances[row, [older, newer]] = 0.0
    with np.errstate(divide="ignore"):
        log_probs = np.log(chances / chances.sum(axis=1, keepdims=True)).astype(np.float16)
    write_table(pairs, log_probs, {"clusters_digest": tree.digest, "source": source}, tree, folder)
    return folder


def knows(older: str, newer: str) -> str:
    """K follows where C or D came after A or B, and E follows where they came before."""
    if {older, newer} <= set("ABCD"):
        return {("AB", "CD"): "K", ("CD", "AB"): "E"}.get(
            tuple("AB" if x in "AB" else "CD" for x in (older, newer)), ""
        )
    return ""


def errs(older: str, newer: str) -> str:
    """The other way round, and after it all that nobody likes."""
    return {"K": "EFGHIJ", "E": "KFGHIJ"}.get(knows(older, newer), "FGHIJ")


def _run(people: dict[str, Path], table: Path, out: Path) -> dict[str, float]:
    limits = EvaluationConfig(bootstrap=200)
    return run_experiment(*people.values(), table, out, size=2, policy=PolicyConfig(), limits=limits, seed=3)


def test_everybody_stands_at_the_cut(people: dict[str, Path]) -> None:
    tree = Clusters.load(people["clusters"])
    found = people_of(read_journeys(people["dataset"], tree, GROUPS), PolicyConfig(), 2)
    assert len(found.users) == PEOPLE and (found.new.sum(axis=1) == 8).all()
    assert (found.met == (np.isin(list(INTERESTS), ["E", "K"]))[[tree.interface.index(x) for x in INTERESTS]]).all()
    assert (found.liked.sum(axis=1) == 1).all() and (found.engagements[found.liked] == 1).all()
    assert all(len(past.clusters) == 8 for past in found.pasts)
    assert (rounds_of(found.new) == 4).all() and (rounds_of(found.met) == 1).all()


def test_a_planner_that_knows_people_beats_pair_frequency_and_is_not_flagged(
    people: dict[str, Path], tmp_path: Path
) -> None:
    found = _run(people, _write_table(tmp_path / "table", people["clusters"], knows), tmp_path / "out")
    # Everybody's one liked interest is among four choices; pair frequency finds that of half of them.
    assert found["planner.found"] == 1 / 4 and found["pair_frequency.found"] == 1 / 8
    assert found["planner.liked"] == 1.0 and found["pair_frequency.liked"] == found["chance.liked"] == 0.5
    assert found["planner.minus.pair_frequency.found.lower"] > 0
    assert (found["people.found"], found["choices.found"], found["choices.liked"]) == (PEOPLE, 4 * PEOPLE, PEOPLE)
    assert json.loads((tmp_path / "out" / RECORD).read_text()) == found
    assert _flags(found) == {}


def test_a_planner_that_errs_is_flagged_on_both_halves(people: dict[str, Path], tmp_path: Path) -> None:
    found = _run(people, _write_table(tmp_path / "table", people["clusters"], errs), tmp_path / "out")
    assert found["planner.found"] == found["planner.liked"] == 0.0
    flags = _flags(found)
    assert set(flags) == {"experiment.found", "experiment.liked"}
    assert f"{found['planner.minus.pair_frequency.found']:+.4f} [" in flags["experiment.found"]
    assert f"over {PEOPLE} people" in flags["experiment.liked"]


def test_one_that_says_no_more_than_pair_frequency_is_flagged(people: dict[str, Path], tmp_path: Path) -> None:
    table = _write_table(tmp_path / "table", people["clusters"], lambda older, newer: "")
    found = _run(people, table, tmp_path / "out")
    assert found["planner.minus.pair_frequency.found"] == 0.0
    assert set(_flags(found)) == {"experiment.found"}


def test_where_nobody_dislikes_anything_a_meeting_tells_nothing(tmp_path: Path) -> None:
    people = _write_people(tmp_path / "run", disliked=1.0)
    found = _run(people, _write_table(tmp_path / "table", people["clusters"], knows), tmp_path / "out")
    assert "planner.found" in found and not any(".liked" in name for name in found)


def test_without_a_language_model_nothing_is_compared(people: dict[str, Path], tmp_path: Path) -> None:
    table = _write_table(tmp_path / "table", people["clusters"], knows, source="frequency")
    assert _run(people, table, tmp_path / "out") == {}
    assert release_flags({"planner.present": 0.0}, EvaluationConfig()) == {}


def test_the_component_writes_what_evaluate_reads(people: dict[str, Path], tmp_path: Path) -> None:
    def artifact(path: Path) -> Any:
        return SimpleNamespace(name=path.stem, path=str(path), metadata={}, log_metric=lambda name, value: None)

    table = _write_table(tmp_path / "table", people["clusters"], knows)
    sections = TrainingConfig().model_dump(mode="json", include={"transitions", "policy", "evaluation", "seed"})
    experiment, metrics = artifact(tmp_path / "experiment"), artifact(tmp_path / "metrics.json")
    inputs = [artifact(path) for path in (*people.values(), table)]
    component.python_func(*inputs, json.dumps({"config": sections}), experiment, metrics)
    written = json.loads((tmp_path / "experiment" / RECORD).read_text())
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert written and {name: measured[name] for name in written} == written
    assert experiment.metadata["inventory"] == {RECORD: (tmp_path / "experiment" / RECORD).stat().st_size}


def _flags(found: dict[str, float]) -> dict[str, str]:
    metrics = {f"experiment.{name}": value for name, value in found.items()}
    return release_flags({"planner.present": 1.0, **metrics}, EvaluationConfig())
