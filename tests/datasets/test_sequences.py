"""Histories line by line: the order is the time; what is no history is refused by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions, sequences
from newfound.errors import DataError


def load(file: Path, out: Path) -> Dataset:
    config = DataConfig(loader="files", interactions=str(file), min_user_events=1, min_item_events=1)
    load_interactions(config, SplitConfig(), 1, out)
    return Dataset(out)


def test_a_line_is_a_history_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    lines = [f"u{user} " + " ".join(f"i{(user + step) % 9}" for step in range(6)) for user in range(12)]
    file.write_text("\n".join([*lines[:5], "", *lines[5:]]) + "\n", encoding="utf-8")
    events = load(file, tmp_path / "out").frame("interactions").sort_values(["user_id", "position"])
    assert len(events) == 72
    assert events[events["user_id"] == "u3"]["item_id"].tolist() == ["i3", "i4", "i5", "i6", "i7", "i8"]


def test_batches_end_where_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.txt"
    file.write_text("a 1 2 3\nb 4 5\nc 6\n", encoding="utf-8")
    monkeypatch.setattr(sequences, "MOST_BATCH_ROWS", 2)
    names, batches = sequences.open_sequences(file)
    rows = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
    assert list(names.values()) == ["user", "item", "position"]
    assert rows == [("a", "1", 0), ("a", "2", 1), ("a", "3", 2), ("b", "4", 0), ("b", "5", 1), ("c", "6", 0)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a 1 2\nb\n", r"row 2: a user without items"),
        (b"a 1 2\nb \xff\xff\n", r"row 2.*UTF-8"),
        (b"a 1\n" + b"b " + b"1 " * (1 << 23), r"row 2: the line is too long"),
        (b"", r"empty"),
        (b"\n\n", r"no rows"),
    ],
)
def test_what_is_no_history_is_refused_by_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "own.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=told):
        load(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
