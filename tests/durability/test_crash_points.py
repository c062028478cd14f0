"""Whatever is written is old or new wherever the machine stops, and what was acknowledged is there.

A draw of each scenario's crash states; `make durability` goes through all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from newfound import files
from tests.durability.faults import FAULTS, Fault, break_at
from tests.durability.scenario import Scenario, crash, scenarios


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda one: one.name)
def test_old_or_new_and_never_neither(scenario: Scenario) -> None:
    found = crash(scenario, per_moment=1, at_most=8 if scenario.slow else 24)
    assert found.crash_points > 4, "nothing was recorded"
    assert found.broken == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
@pytest.mark.parametrize("scenario", scenarios(), ids=lambda one: one.name)
def test_a_file_system_that_refuses_leaves_old_or_new(scenario: Scenario, fault: Fault) -> None:
    """A draw of the operations; `make durability` lets each of them fail."""
    count, _ = break_at(scenario, fault, 0)
    draw = random.Random(0)
    for at in sorted(draw.sample(range(1, count + 1), min(count, 1 if scenario.slow else 4))):
        _, problem = break_at(scenario, fault, at)
        assert problem is None


def _write_in_place(root: Path) -> None:
    (root / "file.txt").write_text("new" * 100)


def _rename_before_the_content_is_there(root: Path) -> None:
    (root / "part").write_text("new" * 100)
    (root / "part").rename(root / "file.txt")


def _acknowledge_before_the_name_is_there(root: Path) -> None:
    with files.new_file(root / "part") as part:
        part.write_text("new" * 100)
    (root / "part").rename(root / "file.txt")


@pytest.mark.parametrize(
    "act", [_write_in_place, _rename_before_the_content_is_there, _acknowledge_before_the_name_is_there]
)
def test_the_replay_finds_what_is_not_crash_safe(act: Callable[[Path], None]) -> None:
    def check(root: Path, done: bool) -> None:
        assert (root / "file.txt").read_text() in ({"new" * 100} if done else {"old" * 100, "new" * 100})

    careless = Scenario("careless", lambda root: files.write_text(root / "file.txt", "old" * 100), act, check)
    assert crash(careless, per_moment=4).broken
