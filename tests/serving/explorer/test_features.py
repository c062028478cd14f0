"""Stored histories as decisions can be made on them, whoever wrote the row."""

from __future__ import annotations

import math

import pytest

from newfound.schema import ENGAGEMENTS, ITEM_IDS, POSITIVES, TIMES
from serving.explorer.features import history_of
from serving.metrics import UNREADABLE_HISTORIES


def columns(
    engagements: list[float], positives: int = 3, times: tuple[int, ...] = (1, 2, 3)
) -> dict[str, list[object]]:
    return {
        ITEM_IDS: ["a", "b", "c"],
        ENGAGEMENTS: list(engagements),
        POSITIVES: [True] * positives,
        TIMES: list(times),
    }


def test_a_sound_row_is_taken_as_it_is():
    before = UNREADABLE_HISTORIES._value.get()
    history = history_of(columns([0.0, 0.5, 1.0]), ["l1"], "digest")
    assert (history.item_ids, history.engagements, history.newest) == (["a", "b", "c"], [0.0, 0.5, 1.0], 3)
    assert history_of(columns([], 0, ()) | {ITEM_IDS: []}).newest is None
    assert UNREADABLE_HISTORIES._value.get() == before


@pytest.mark.parametrize(
    ("engagements", "positives", "items", "kept"),
    [
        ([0.5, math.nan, 1.0], 3, ["a", "c"], [0.5, 1.0]),
        ([-1e30, 0.5, math.inf], 3, ["a", "b", "c"], [0.0, 0.5, 1.0]),
        ([0.5, 0.5], 3, ["a", "b"], [0.5, 0.5]),
        ([0.5, 0.5, 0.5], 1, ["a"], [0.5]),
    ],
)
def test_a_row_of_another_writer_is_read_as_far_as_it_goes_and_counted(engagements, positives, items, kept):
    before = UNREADABLE_HISTORIES._value.get()
    history = history_of(columns(engagements, positives))
    assert (list(history.item_ids), list(history.engagements)) == (items, kept)
    assert len(history.positives) == len(items) and UNREADABLE_HISTORIES._value.get() == before + 1
