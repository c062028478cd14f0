"""Co-occurrence: counts by hand, and the same whatever is held at a time."""

from __future__ import annotations

import numpy as np
import pytest

from newfound.ranker import cooccurrence
from newfound.ranker.cooccurrence import count_cooccurrence
from newfound.ranker.data import Sequences


def _strength(found: cooccurrence.CoOccurrence, source: int, other: int) -> float:
    part = slice(found.offsets[source], found.offsets[source + 1])
    at = np.flatnonzero(found.neighbours[part] == other)
    return float(found.strengths[part][at[0]]) if len(at) else 0.0


def test_strengths_by_hand() -> None:
    found = count_cooccurrence(Sequences.of([[0, 1, 2], [0, 1], [3]]), 5)
    # 1 follows 0 twice at once; 0 and 1 occur twice each, so (1 + 2) stands for either.
    assert _strength(found, 0, 1) == pytest.approx(10 * 2 * 3**-0.5 * 3**-0.3)
    assert _strength(found, 1, 0) == pytest.approx(10 * 0.5 * 2 * 3**-0.5 * 3**-0.3)
    assert _strength(found, 0, 2) == pytest.approx(10 * 0.8 * 3**-0.5 * 2**-0.3)  # one step further
    assert np.diff(found.offsets).tolist() == [2, 2, 2, 0, 0]


def test_the_bonus_fades_with_age_and_sums_over_the_history() -> None:
    found = cooccurrence.CoOccurrence(
        offsets=np.array([0, 2, 3, 3]),
        neighbours=np.array([1, 2, 2]),
        strengths=np.array([1.0, 2.0, 4.0], dtype=np.float32),
        decay=0.5,
        weight=3.0,
    )
    items, bonus = found.bonus(np.array([0, 1]))
    assert items.tolist() == [1, 2]
    assert bonus.tolist() == pytest.approx([3 * np.log1p(0.5 * 1), 3 * np.log1p(0.5 * 2 + 4)], rel=1e-6)
    assert not len(found.bonus(np.array([2]))[0])
    assert not len(found.bonus(np.array([], dtype=np.int64))[0])


def test_only_the_strongest_neighbours_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "NEIGHBOURS", 1)
    found = count_cooccurrence(Sequences.of([[0, 1], [0, 1], [0, 2]]), 3)
    assert found.neighbours[found.offsets[0] : found.offsets[1]].tolist() == [1]


def test_the_same_in_one_run_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sequences = Sequences.of(random.integers(0, 30, size) for size in random.integers(0, 25, 60))
    whole = count_cooccurrence(sequences, 30)
    monkeypatch.setattr(cooccurrence, "PAIRS", 500)
    parts = count_cooccurrence(sequences, 30)
    for name in ("offsets", "neighbours", "strengths"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
