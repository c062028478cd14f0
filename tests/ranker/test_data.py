"""Sequences and batches: what is trained on, and how often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.errors import DataError
from newfound.ranker.data import PAD, Sequences, epoch_batches, read_sequence_lines


def test_holding_out_takes_the_last_item_of_long_enough_sequences() -> None:
    kept, last = Sequences.of([[1, 2, 3], [4, 5], [], [6, 7, 8, 9]]).drop_last(least=3)
    assert last.tolist() == [3, PAD, PAD, 9]
    assert [kept.row(user).tolist() for user in range(4)] == [[1, 2], [4, 5], [], [6, 7, 8]]


def test_padding_follows_the_last_items() -> None:
    rows = Sequences.of([[1, 2, 3], [4], []]).padded(np.array([0, 1, 2]), 2)
    assert rows.tolist() == [[2, 3], [4, PAD], [PAD, PAD]]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), max_size=30),
    length=st.integers(1, 12),
    tokens=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_every_item_but_the_first_is_a_target_once_behind_its_own_predecessor(
    sizes: list[int], length: int, tokens: int, seed: int
) -> None:
    # Items are numbered through, so each names its user and its place.
    starts = np.cumsum([0, *sizes])
    sequences = Sequences.of([range(start, start + size) for start, size in zip(starts, sizes, strict=False)])
    targets: Counter[int] = Counter()
    for batch in epoch_batches(sequences, length, tokens, (seed, 0)):
        assert batch.shape[1] <= length + 1
        assert len(batch) == 1 or batch.shape[0] * (batch.shape[1] - 1) <= tokens
        for row in batch:
            real = row[row != PAD]
            assert (row[len(real) :] == PAD).all() and len(real) > 1
            assert (np.diff(real) == 1).all()
            targets.update(real[1:].tolist())
    expected = [item for start, size in zip(starts, sizes, strict=False) for item in range(start + 1, start + size)]
    assert targets == Counter(expected)


def test_an_epoch_is_drawn_from_its_seed_alone() -> None:
    sequences = Sequences.of([range(n) for n in range(2, 60)])
    first = [batch.tolist() for batch in epoch_batches(sequences, 10, 50, (3, 1))]
    assert first == [batch.tolist() for batch in epoch_batches(sequences, 10, 50, (3, 1))]
    assert first != [batch.tolist() for batch in epoch_batches(sequences, 10, 50, (3, 2))]


def test_sequence_lines(tmp_path: Path) -> None:
    file = tmp_path / "set.txt"
    file.write_text("anna 7 30 7\nben 5\n", encoding="utf-8")
    users, items, sequences = read_sequence_lines(file)
    assert users == ["anna", "ben"] and items == ["30", "5", "7"]
    assert [sequences.row(user).tolist() for user in range(2)] == [[2, 0, 2], [1]]


def test_sequence_lines_of_one_event_each(tmp_path: Path) -> None:
    file = tmp_path / "set.txt"
    file.write_text("1 7\n1 30\n2 5\n1 5\n", encoding="utf-8")
    users, items, sequences = read_sequence_lines(file)
    assert users == ["1", "2"] and items == ["30", "5", "7"]
    assert [sequences.row(user).tolist() for user in range(2)] == [[2, 0, 1], [1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "an empty file"),
        ("anna 1 2\n\nben 3\n", "row 2: an empty line"),
        ("anna 1 4\nben 2\nanna 3\n", "row 3: user 'anna' comes twice"),
    ],
)
def test_bad_sequence_lines_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "set.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_sequence_lines(file)
