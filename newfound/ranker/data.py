"""Integer sequences, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newfound.errors import DataError
from newfound.types import Ints

PAD = -1
_LINES = "`user item item ...`, one line a user"


@dataclass(frozen=True)
class Sequences:
    """Ragged integer sequences, one a user, oldest first: user `u` has `items[offsets[u]:offsets[u + 1]]`."""

    items: Ints
    offsets: Ints

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Sequences:
        """Packs lists of item positions."""
        parts = [np.asarray(list(row), dtype=np.int64) for row in rows]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        items = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return cls(items, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def row(self, user: int) -> Ints:
        """One user's items, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def drop_last(self, least: int = 2) -> tuple[Sequences, Ints]:
        """Holds out the last item of every sequence that has at least `least` items.

        Returns:
            The shortened sequences, and each user's held-out item, `PAD` where none was taken.
        """
        lengths = self.lengths
        held = lengths >= least
        last = np.full(len(self), PAD, dtype=np.int64)
        last[held] = self.items[self.offsets[1:][held] - 1]
        keep = np.ones(len(self.items), dtype=bool)
        keep[self.offsets[1:][held] - 1] = False
        kept = lengths - held
        return Sequences(self.items[keep], np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])), last

    def padded(self, users: Ints, length: int) -> Ints:
        """The last `length` items of some users, left aligned.

        Returns:
            int64 [users, longest among them], `PAD` after each sequence's end.
        """
        stops = self.offsets[users + 1]
        starts = np.maximum(self.offsets[users], stops - length)
        return _gather(self.items, starts, stops - starts)


def _gather(items: Ints, starts: Ints, lengths: Ints) -> Ints:
    width = int(lengths.max(initial=0))
    column = np.arange(width)
    inside = column < lengths[:, None]  # [rows, width]
    return np.where(inside, items[np.where(inside, starts[:, None] + column, 0)] if len(items) else PAD, PAD)


def epoch_batches(sequences: Sequences, length: int, tokens: int, seed: tuple[int, ...]) -> Iterator[Ints]:
    """Cuts every sequence into windows and groups windows of about the same length, in random order.

    A sequence of up to `length + 1` items is one window. A longer one is cut at a phase drawn anew at each call, so
    that every item but the first is a target exactly once an epoch, behind contexts of varying lengths.

    Args:
        sequences: the training sequences.
        length: most items in a model input; a window is one longer, for the last target.
        tokens: most targets in a batch, padding included (a single longer window makes a batch of its own).
        seed: what the order and the phases are drawn from.

    Yields:
        int64 [windows, longest among them], `PAD` after each window's end.
    """
    draw = np.random.default_rng(seed)
    sizes = sequences.lengths
    phase = np.where(sizes > length + 1, draw.integers(1, length + 1, len(sizes)), 0)
    # Targets of a sequence are its positions 1 .. size - 1; the first window ends at `phase` (0: a whole window).
    first = np.where(phase > 0, phase, np.minimum(length, sizes - 1))
    pieces = np.where(sizes > 1, 1 + np.ceil(np.maximum(sizes - 1 - first, 0) / length).astype(np.int64), 0)
    owner = np.repeat(np.arange(len(sizes)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.where(number == 0, 0, first[owner] + (number - 1) * length)
    end = np.minimum(first[owner] + number * length, sizes[owner] - 1)
    spans = end - begin  # targets in the window
    order = np.argsort(spans + draw.random(len(spans)), kind="stable")
    batches = []
    at = 0
    while at < len(order):
        # Sorted upwards: take as many windows as fit when padded to the last one's length.
        reach = spans[order[at : at + tokens]]
        fit = int(np.searchsorted(reach * np.arange(1, len(reach) + 1), tokens, side="right"))
        batches.append(order[at : at + max(fit, 1)])
        at += max(fit, 1)
    for which in draw.permutation(len(batches)):
        rows = batches[which]
        yield _gather(sequences.items, sequences.offsets[owner[rows]] + begin[rows], spans[rows] + 1)


def read_sequence_lines(path: str | Path) -> tuple[list[str], list[str], Sequences]:
    """Reads the text forms of the published sequence sets, oldest first.

    Either one line a user, `user item item ...`, or, where every line has two fields, one line an event, `user item`.

    Returns:
        User ids, item ids (sorted) and sequences of positions in the latter.

    Raises:
        DataError: the file is missing, empty or no text, a line is empty, or a user has two lines of their own.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", expected=_LINES) from error
    if not lines:
        raise DataError(str(path), "an empty file", expected=_LINES)
    pairs = all(len(fields) == 2 for fields in lines)
    rows: dict[str, list[str]] = {}
    for number, fields in enumerate(lines, start=1):
        if not fields:
            raise DataError(str(path), "an empty line", expected=_LINES, row=number)
        user, *items = fields
        if user in rows and not pairs:
            raise DataError(str(path), f"user {user!r} comes twice", expected="one line a user", row=number)
        rows.setdefault(user, []).extend(items)
    names = sorted({item for row in rows.values() for item in row})
    position = {item: at for at, item in enumerate(names)}
    return list(rows), names, Sequences.of([position[item] for item in row] for row in rows.values())
