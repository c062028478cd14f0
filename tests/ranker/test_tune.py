"""The search: it finds, prunes, goes on where it was stopped, and is shared by workers."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from newfound.config import Range, RankerConfig, TuningConfig
from newfound.errors import ConfigError
from newfound.ranker import Ranker, train_ranker, tune_ranker
from tests.ranker.conftest import SMALL, World

SPACE = {"learning_rate": Range(low=1e-4, high=2e-2, log=True), "dim": [8, 16]}


def _tune(world: World, out: Path, **settings: object) -> dict[str, float | int | str]:
    tuning = TuningConfig.model_validate({"trials": 3, "epochs": 2, "space": SPACE, **settings})
    return tune_ranker(*world, SMALL, tuning, 7, 1, out)


def test_the_configured_settings_come_first_and_the_best_is_written(world: World, tmp_path: Path) -> None:
    measures = _tune(world, tmp_path)
    trials = json.loads((tmp_path / "trials.json").read_text())
    best = json.loads((tmp_path / "best.json").read_text())
    assert len(trials) == measures["trials"] == 3
    assert trials[0]["settings"] == {"dim": 16, "learning_rate": SMALL.learning_rate}
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert best["ndcg@10"] == max(trial["ndcg@10"] for trial in complete) == measures["validation.ndcg@10"]
    assert all(1 <= len(trial["curve"]) <= 2 for trial in trials)


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(world: World, tmp_path: Path) -> None:
    _tune(world, tmp_path / "whole")
    _tune(world, tmp_path / "parts", trials=1)
    _tune(world, tmp_path / "parts")
    one, other = (json.loads((tmp_path / name / "trials.json").read_text()) for name in ("whole", "parts"))
    without_time = [[{**trial, "seconds": 0} for trial in trials] for trials in (one, other)]
    assert without_time[0] == without_time[1]


def test_what_was_running_when_the_search_was_killed_is_done_anew(world: World, tmp_path: Path) -> None:
    _tune(world, tmp_path, trials=1)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    optuna.load_study(study_name="ranker", storage=storage).ask()  # never told how it ended
    assert _tune(world, tmp_path, trials=2)["trials"] == 2
    states = [trial.state.name for trial in optuna.load_study(study_name="ranker", storage=storage).get_trials()]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_hopeless_trial_is_cut_short(world: World, tmp_path: Path) -> None:
    space = {"learning_rate": [SMALL.learning_rate, 1e-7]}
    measures = _tune(world, tmp_path, trials=8, epochs=3, space=space)
    trials = json.loads((tmp_path / "trials.json").read_text())
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert len(pruned) == measures["pruned"] > 0
    assert all(trial["settings"]["learning_rate"] == 1e-7 and len(trial["curve"]) < 3 for trial in pruned)
    assert measures["best.learning_rate"] == SMALL.learning_rate


def test_two_workers_share_one_journal(world: World, tmp_path: Path) -> None:
    measures = _tune(world, tmp_path, workers=2, trials=4)
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert 4 <= int(measures["trials"]) == len(trials) <= 5
    assert len({trial["number"] for trial in trials}) == len(trials)


def test_two_workers_share_one_study_in_a_database(world: World, tmp_path: Path) -> None:
    measures = _tune(world, tmp_path / "out", workers=2, storage=f"sqlite:///{tmp_path}/study.db", trials=2)
    assert 2 <= int(measures["trials"]) <= 3


def test_training_takes_what_was_found(world: World, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "best.json").write_text(json.dumps({"settings": {"dim": 8}}))
    config = SMALL.model_copy(update={"epochs": 1})
    train_ranker(*world, config, 7, 1, tmp_path / "ranker", tmp_path / "tuned")
    assert Ranker.load(tmp_path / "ranker").index.vectors.shape[1] == 8


def test_no_trials_means_the_configuration_as_it_is(world: World, tmp_path: Path) -> None:
    assert _tune(world, tmp_path, trials=0)["trials"] == 0
    assert json.loads((tmp_path / "best.json").read_text())["settings"] == {}


@pytest.mark.parametrize("space", [{"depth": [1]}, {"dim": [0]}, {"dropout": Range(low=0.1, high=1.5)}])
def test_a_space_that_does_not_fit_is_refused_before_anything_runs(space: dict, world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{next(iter(space))}' cannot be"):
        _tune(world, tmp_path / "out", space=space)
    assert not (tmp_path / "out").exists()


def test_a_range_runs_upwards() -> None:
    for low, high, log in ((2, 1, False), (0, 1, True)):
        with pytest.raises(ValueError, match="expected low < high"):
            Range(low=low, high=high, log=log)
    assert RankerConfig().negatives is None


def test_other_inputs_are_another_study_of_the_database(world: World, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    _tune(world, tmp_path / "one", storage=storage, trials=1, epochs=1)
    _tune(world, tmp_path / "two", storage=storage, trials=1, epochs=1)
    (name,) = optuna.get_all_study_names(storage)
    assert len(optuna.load_study(study_name=name, storage=storage).get_trials()) == 1
    _tune(world, tmp_path / "three", storage=storage, trials=1, epochs=2)
    assert len(optuna.get_all_study_names(storage)) == 2
