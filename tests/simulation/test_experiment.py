"""The experiment's instrument: nothing where nothing is, a planted effect found, a stopped run taken up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from newfound.simulation.closed_loop import LoopConfig
from newfound.simulation.experiment import MAKERS, PLANTED, ExperimentConfig, lifts, paired, run
from newfound.simulation.language import word_vectors
from newfound.simulation.page import render, verdict
from newfound.simulation.tastes import descriptions
from newfound.simulation.world_config import WorldConfig

WORLD = WorldConfig(people=80, themes=5, facets=3, items=3, past=10)
STATES = word_vectors(descriptions(WORLD))


def config(**options: object) -> ExperimentConfig:
    told = {"worlds": {"links": WORLD}, "seeds": [1], "loop": LoopConfig(days=6, retrain=3, retained=2, unique=3)}
    return ExperimentConfig.model_validate(told | options)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run(config(), STATES, tmp_path_factory.mktemp("experiment") / "runs.jsonl")


def test_every_arm_runs_and_reports_every_measure(rows: list[dict]) -> None:
    assert {row["arm"] for row in rows} == {*MAKERS, *PLANTED}
    for row in rows:
        assert len(row["daily"]["retained"]) == 6
        assert 0 <= row["measures"]["satisfaction"] <= 1 and row["measures"]["ueuc"] > 0


def test_the_planted_effect_is_found_and_an_arm_against_itself_shows_nothing(tmp_path: Path) -> None:
    seeds = list(range(6))
    found = run(config(seeds=seeds, arms=["random_novel", *PLANTED]), STATES, tmp_path / "runs.jsonl")
    against = lifts(found, "random_novel")
    planted = against["links", "oracle_quarter", "novel_positive_rate"]
    same = against["links", "random_again", "novel_positive_rate"]
    assert planted.lower > 0
    assert same.lower <= 0 <= same.upper


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, rows: list[dict]) -> None:
    log = tmp_path / "runs.jsonl"
    few = ["ranker", "pair_frequency"]
    kept = {**rows[0], "measures": {**rows[0]["measures"], "ueuc": -1.0}}
    assert kept["arm"] == "ranker"
    log.write_text(json.dumps(kept) + "\n" + '{"digest": "torn', encoding="utf-8")
    found = run(config(arms=few), STATES, log)
    assert found[0]["measures"]["ueuc"] == -1.0  # taken up, not run again
    assert found[1]["measures"] == next(row for row in rows if row["arm"] == "pair_frequency")["measures"]


def test_the_schedule_is_part_of_what_results_are_kept_under() -> None:
    assert config().digest != config(loop=LoopConfig(days=7)).digest


def test_intervals_are_over_seeds() -> None:
    lift = paired([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert lift.value == 2.0 and lift.lower == pytest.approx(2 - 4.3027 * 3**-0.5, abs=1e-3)


def test_the_page_tells_a_defeat_as_plainly_as_a_victory() -> None:
    def row(arm: str, seed: int, retained: float) -> dict:
        measures = {"retained_interests": retained + seed / 100, "uci_at_n": retained, "satisfaction": 0.5}
        return {"world": "w", "arm": arm, "seed": seed, "measures": measures, "daily": {"retained": [0.0, retained]}}

    won = [row(arm, seed, value) for seed in (1, 2) for arm, value in (("ranker", 1.0), ("newfound", 2.0))]
    lost = [row(arm, seed, value) for seed in (1, 2) for arm, value in (("ranker", 1.0), ("newfound", 0.5))]
    assert "above every other arm" in verdict(won) and "behind: ranker alone" in verdict(lost)
    results = {"closed_loop": {"sealed": lost}, "calibration": {"w": ({"like_rate": 0.5}, [])}}
    page = render(results | {"expected_to_win": ["w"], "size": "quick"})
    assert "behind: ranker alone" in page and "<svg" in page and "<script" not in page
