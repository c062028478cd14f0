"""One release, loaded for the ranker: its item policy with the decision, and what was taken down of its items."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.query import JointQuery
from newfound.release.new_items import NewItems
from newfound.release.takedown import Takedown
from newfound.types import Ints

PARTS = ("clusters", "ranker")
OPTIONAL = ("decision",)  # releases of before have none


class LoadedRanker:
    """A release's ranker, which leaves out what was taken down.

    Args:
        ranker: the release's.
    """

    def __init__(self, ranker: JointRanker) -> None:
        self.ranker = ranker
        self.interface = frozenset(ranker.interface)
        self._taken_down: tuple[Takedown, Ints] = (Takedown(), np.zeros(0, dtype=np.int64))

    def with_new(self, new: NewItems) -> LoadedRanker:
        """This release's ranker with its new items.

        Raises:
            VocabularyError: they were made for another release.
        """
        return LoadedRanker(self.ranker.with_new(new))

    def taken_down(self, takedown: Takedown, clusters: Iterable[str]) -> list[str]:
        """The items of some clusters that were taken down.

        Args:
            takedown: the list as it is now.
            clusters: of any level, known to the ranker.
        """
        # The list and what follows from it change together: another thread reads the list anew at any time.
        if self._taken_down[0] is not takedown:
            self._taken_down = (takedown, self._positions(takedown))
        hidden = self._taken_down[1]
        if not len(hidden):
            return []
        spans = [self.ranker.ranker.slices[cluster] for cluster in clusters]
        edges = np.searchsorted(hidden, np.array(spans, dtype=np.int64))
        found = np.unique(np.concatenate([hidden[first:last] for first, last in edges]))
        return [self.ranker.items[position] for position in found.tolist()]

    def _positions(self, takedown: Takedown) -> Ints:
        """Sorted positions of every item that was taken down, alone or with its cluster."""
        slices = self.ranker.ranker.slices
        spans = [slices[node] for node in sorted(takedown.clusters) if node in slices]
        alone = self.ranker.ranker.positions(sorted(takedown.items))
        return np.unique(np.concatenate([alone, *(np.arange(start, stop) for start, stop in spans)]).astype(np.int64))


def build_ranker(folder: Path, release: str) -> LoadedRanker:
    """Loads a release's ranker and runs it once, so that the first request does not pay for it."""
    ranker = JointRanker.load(folder)
    first = ranker.interface[0]
    for length in (1, 50, 200):
        ranker.top_k([JointQuery(ranker.items[:length], {first: 0.0}, 1, [first], [1])])
    return LoadedRanker(ranker)
