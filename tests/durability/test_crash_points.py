"""Whatever is written is old or new wherever the machine stops, and what was acknowledged is there.

A draw of each scenario's crash states; `make durability` goes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from newfound import files
from tests.durability.scenario import Scenario, crash, scenarios


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda one: one.name)
def test_old_or_new_and_never_neither(scenario: Scenario) -> None:
    found = crash(scenario, per_moment=1, at_most=24)
    assert found.crash_points > 4, "nothing was recorded"
    assert found.broken == []


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
