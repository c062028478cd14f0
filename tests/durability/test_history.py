"""One line of moves of `current`, whoever moves it and whoever is killed; `make durability` goes on for longer."""

from __future__ import annotations

from tests.durability.history import history


def test_publishers_rollbacks_and_promotions_at_once_make_one_line() -> None:
    found = history(3.0)
    assert found.acknowledged > 5 and found.kills > 3, found
    assert (found.lost, found.twice) == (0, 0), found
