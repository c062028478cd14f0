"""Co-occurrence: the items that other histories held near each item, as a sparse matrix.

A transformer learns which kinds of items follow each other; that two items of which each was consumed five times were
consumed together four times, it is slow to learn, and counts know at once. So an item's score has a part that is read
from counts, with a weight that is chosen on held-out items (0 where counts do not help).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from newfound.ranker.data import Sequences
from newfound.types import Doubles, Floats, Ints

WINDOW: Final = 10  # steps between two items that still count as near
FADE: Final = 0.8  # what a pair counts for each step further apart
BACKWARD: Final = 0.5  # what "before" counts against "after"
NEIGHBOURS: Final = 256  # strongest kept of an item
SHARPNESS: Final = 10.0
RARITY: Final = 0.3
PAIRS: Final = 1 << 25  # held at a time


@dataclass(frozen=True)
class CoOccurrence:
    """Sparse item-to-item strengths, and how a history turns them into a part of the score.

    Attributes:
        offsets: int64 [items + 1]; item i's neighbours are rows `offsets[i]:offsets[i + 1]` of the other two.
        neighbours: int64 [entries], ascending within an item.
        strengths: float32 [entries], not negative.
        recent: how many of the last items of a history are looked up.
        decay: what a strength counts for each step further back in the history.
        weight: what its part of the score is multiplied by; 0 turns it off.
        rarity: how much a rare neighbour gains over a frequent one (`count_cooccurrence`).
        new: ascending positions in `neighbours`' count before which a new item lies, which has no neighbours and is
            nobody's (`with_new`); `offsets` and all that goes in or comes out count them.
    """

    offsets: Ints
    neighbours: Ints
    strengths: Floats
    recent: int = 20
    decay: float = 0.7
    weight: float = 0.0
    rarity: float = RARITY
    new: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def with_new(self, places: Ints) -> CoOccurrence:
        """The same with items that were never consumed; neighbours and strengths are shared, whatever their size.

        Args:
            places: ascending positions before which they come to lie.
        """
        if len(self.new):
            raise ValueError("new items are there already; expected the co-occurrence as it was counted")
        sizes = np.insert(np.diff(self.offsets), places, 0)
        return replace(self, offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), new=places)

    def strength(self, history: Ints) -> tuple[Ints, Floats]:
        """Neighbours of a history of item positions, ascending, and the log of their summed strengths plus one."""
        last = history[-self.recent :]
        starts, sizes = self.offsets[last], self.offsets[last + 1] - self.offsets[last]
        entries = int(sizes.sum())
        if not entries:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        rows = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(entries)
        faded = np.repeat(self.decay ** np.arange(len(last) - 1, -1, -1.0), sizes)
        items, place = np.unique(self.neighbours[rows], return_inverse=True)
        if len(self.new):
            items = items + np.searchsorted(self.new, items, side="right")
        return items, np.log1p(np.bincount(place, self.strengths[rows] * faded)).astype(np.float32)

    def bonus(self, history: Ints) -> tuple[Ints, Floats]:
        """Its part of the score: ascending item positions, and what each of them gets."""
        if self.weight == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        items, values = self.strength(history)
        return items, np.float32(self.weight) * values


def count_cooccurrence(sequences: Sequences, items: int, rarity: float = RARITY) -> CoOccurrence:
    """Counts which items lie near each other in the sequences.

    The strength of a for b is the faded count of b near a, over sqrt(1 + count of a) and (1 + count of b) ** rarity:
    rare items gain, without a single coincidence outweighing everything.
    """
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    counts = np.bincount(sequences.items, minlength=items).astype(np.float64) + 1.0
    # Sources are taken in runs, so that the pairs held at a time stay bounded.
    runs = 1 + 2 * WINDOW * len(owner) // PAIRS
    bounds = np.searchsorted(np.cumsum(counts), np.linspace(0, counts.sum(), runs + 1)[1:-1])
    parts = [
        _strengths(sequences.items, owner, counts, rarity, int(start), int(stop))
        for start, stop in zip([0, *bounds], [*bounds, items], strict=True)
    ]
    sources, neighbours, strengths = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    offsets = np.searchsorted(sources, np.arange(items + 1)).astype(np.int64)
    return CoOccurrence(offsets, neighbours, strengths, rarity=rarity)


def _strengths(
    items: Ints, owner: Ints, counts: Doubles, rarity: float, start: int, stop: int
) -> tuple[Ints, Ints, Floats]:
    """The strongest neighbours of items start .. stop - 1: sources and neighbours, ascending, and strengths."""
    keys, weights = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for step in range(1, WINDOW + 1):
        same = owner[step:] == owner[:-step]
        before, after = items[:-step][same], items[step:][same]
        for source, other, share in ((before, after, 1.0), (after, before, BACKWARD)):
            mine = (source >= start) & (source < stop) & (source != other)
            keys.append(source[mine] * len(counts) + other[mine])
            weights.append(np.full(int(mine.sum()), share * FADE ** (step - 1)))
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    sources, others = np.divmod(pairs, len(counts))
    near = np.bincount(place, np.concatenate(weights), minlength=len(pairs))
    strengths = (SHARPNESS * near * counts[sources] ** -0.5 * counts[others] ** -rarity).astype(np.float32)
    order = np.lexsort((others, -strengths, sources))  # of equal strengths, the lower item is kept
    first = np.searchsorted(sources, sources, side="left")
    kept = np.sort(order[np.arange(len(order)) - first < NEIGHBOURS])
    return sources[kept], others[kept], strengths[kept]
