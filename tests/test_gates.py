"""Gates: all are held, every one that fails is named, and an absent figure passes none."""

from __future__ import annotations

import math

import pytest

from newfound.config import EvaluationConfig
from newfound.errors import GateError
from newfound.gates import BESIDE, Check, release_checks, release_flags, require

GOOD = {"planner.present": 1.0, "planner.match_rate": 0.95, "planner.recall_over_chance.lower": 3.5}


def held(metrics: dict[str, float], **bounds: float) -> dict[str, dict[str, object]]:
    return require(release_checks(metrics, EvaluationConfig(**bounds)))


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "passed"),
    [(1.0, 1.0, True, True), (1.0, 1.1, True, False), (1.0, 1.0, False, True), (1.1, 1.0, False, False),
     (math.nan, 0.0, True, False), (math.nan, 1.0, False, False), (math.inf, 1.0, True, True)],
)  # fmt: skip
def test_a_bound_is_held_on_its_own_side_and_never_by_what_is_no_number(
    value: float, bound: float, at_least: bool, passed: bool
) -> None:
    assert Check("it", value, bound, at_least).passed is passed


def test_a_check_says_what_was_expected() -> None:
    assert str(Check("leak", 0.25, 0.1, at_least=False)) == "leak is 0.25, expected at most 0.1"


def test_all_hold() -> None:
    assert held(GOOD) == {
        "match_rate": {"value": 0.95, "bound": 0.9, "passed": True},
        "recall_over_chance": {"value": 3.5, "bound": 3.0, "passed": True},
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"planner.match_rate": 0.89}, ["match_rate"]),
        ({"planner.recall_over_chance.lower": 2.99}, ["recall_over_chance"]),
        ({"planner.match_rate": 0.1, "planner.recall_over_chance.lower": 1.0}, ["match_rate", "recall_over_chance"]),
        ({"planner.match_rate": math.nan}, ["match_rate"]),
    ],
)
def test_a_failed_gate_is_named(change: dict[str, float], named: list[str]) -> None:
    with pytest.raises(GateError) as error:
        held(GOOD | change)
    assert all(f"gate '{name}'" in str(error.value) for name in named)
    checks = release_checks(GOOD | change, EvaluationConfig())
    assert [check.name for check in checks if not check.passed] == named


def test_an_absent_figure_does_not_pass() -> None:
    with pytest.raises(GateError, match="recall_over_chance"):
        held({"planner.present": 1.0, "planner.match_rate": 1.0})


def test_without_a_language_model_the_table_is_measured() -> None:
    assert list(held({"planner.present": 0.0, "table.recall_over_chance.lower": 4.0})) == ["recall_over_chance"]
    with pytest.raises(GateError):
        held({"planner.present": 0.0, "table.recall_over_chance.lower": 1.0})


def test_a_stricter_bound_fails_what_passed() -> None:
    with pytest.raises(GateError, match="expected at least 5"):
        held(GOOD, min_recall_over_chance=5)


def beside(half: str, value: float, lower: float, upper: float) -> dict[str, float]:
    """The small experiment's figures of one half of the claim."""
    key = f"{BESIDE}.{half}"
    return {key: value, f"{key}.lower": lower, f"{key}.upper": upper, f"experiment.people.{half}": 1234.0}


@pytest.mark.parametrize(
    ("found", "liked", "flagged"),
    [
        ((0.02, 0.01, 0.03), (0.0, -0.01, 0.01), []),
        ((0.02, 0.01, 0.03), (-0.01, -0.02, 0.001), []),  # liked less is not shown
        ((0.02, 0.0, 0.04), (0.0, -0.01, 0.01), ["experiment.found"]),
        ((-0.02, -0.03, -0.01), (0.0, -0.01, 0.01), ["experiment.found"]),
        ((0.02, 0.01, 0.03), (-0.03, -0.04, -0.02), ["experiment.liked"]),
        ((0.0, 0.0, 0.0), (-0.03, -0.04, -0.02), ["experiment.found", "experiment.liked"]),
    ],
)
def test_a_planner_that_does_not_beat_pair_frequency_is_flagged_and_not_refused(
    found: tuple[float, float, float], liked: tuple[float, float, float], flagged: list[str]
) -> None:
    metrics = GOOD | beside("found", *found) | beside("liked", *liked)
    flags = release_flags(metrics, EvaluationConfig())
    assert list(flags) == flagged and set(held(metrics)) == {"match_rate", "recall_over_chance"}
    for name in flagged:
        value, lower, upper = {"experiment.found": found, "experiment.liked": liked}[name]
        figure = f"{value:+.4f} [{lower:+.4f}, {upper:+.4f}] a choice, 95% interval over 1,234 people"
        assert flags[name].endswith(figure)


def test_a_planner_of_which_nothing_is_known_is_flagged_and_no_planner_is_not() -> None:
    (told,) = release_flags(GOOD, EvaluationConfig()).values()
    assert told.endswith("nobody met a new interest after the cut")
    assert release_flags(GOOD | {"planner.present": 0.0}, EvaluationConfig()) == {}
