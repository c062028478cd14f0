"""New rows among others: items that are put at the end of their leaves, where arrays lie in cluster order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from newfound.types import Ints, Span

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True)
class Insertion:
    """New rows, and where they come to lie.

    Attributes:
        places: int64 [n], ascending: the position before which each lies.
        order: int64 [n], which of the new rows it is.
    """

    places: Ints
    order: Ints

    @classmethod
    def at_ends(cls, stops: Sequence[int], names: Sequence[str]) -> Insertion:
        """At the ends of slices; those of one slice in the order of their names.

        Args:
            stops: where the slice of each ends.
            names: of each.
        """
        order = sorted(range(len(names)), key=lambda at: (stops[at], names[at]))
        return cls(np.array([stops[at] for at in order], dtype=np.int64), np.array(order, dtype=np.int64))

    def rows(self, there: NDArray[Element], new: NDArray[Element]) -> NDArray[Element]:
        """An array with the new rows in their places."""
        found: Any = np.insert(there, self.places, new[self.order], axis=0)
        return np.ascontiguousarray(found)

    def names(self, there: Sequence[str], new: Sequence[str]) -> list[str]:
        """Names with the new ones in their places."""
        found: list[str] = []
        before = 0
        for place, at in zip(self.places.tolist(), self.order.tolist(), strict=True):
            found += there[before:place]
            found.append(new[at])
            before = place
        return [*found, *there[before:]]

    def moved_span(self, span: Span) -> Span:
        """A slice with the new rows that are put into it."""
        start, stop = np.searchsorted(self.places, span, side="right").tolist()
        return span[0] + start, span[1] + stop
