"""The decision's terms of items beside the ranker's: how many consume and like them, since when, what they say.

A folder's `items.safetensors`, in the clusters' item order. A history's text term is the dot product of an item's text
vector with the faded mean of those of the history; both are the leading components of the clusters' text vectors. What
makes the terms of an item that appears later lies beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.features.histories import Histories
from newfound.ranker.insertion import Insertion
from newfound.types import Bools, Doubles, Floats, Ints, Reals

FILE: Final = "items.safetensors"
COMPONENTS: Final = 64
FADE: Final = 0.9  # what a text counts for each step further back in the history
HALF_LIFE: Final = 0.05  # of the recent count, as a share of the time that the events span
COUNTS: Final = ("popularity", "approval", "trend", "freshness")
TIMED: Final = ("trend", "freshness")
"""Counts that mean something only where all pasts end at the same time."""
PRIOR: Final = 10.0  # events of average approval that an item sets out with
NEWEST: Final = 0.01  # share of the span of time below which an item is not told to be newer
ROWS: Final = 1 << 16  # text vectors looked at together


@dataclass(frozen=True)
class ItemTerms:
    """Terms of every item, in cluster order.

    Attributes:
        counts: float32 [items, terms], by name of COUNTS, each centred: log of one plus the events; log-odds that an
            event is positive, shrunk to the mean; log of one plus the recent events, less the same of all; log of the
            share of time since the first event, negated.
        text: float32 [items, dim], unit length or zero; dim is 0 where no item has text.
        unseen: float32 [terms], the counts of an item that nobody has had; None in files of before.
        components: what `text` was made by; None where no item has text, and in files of before.
    """

    counts: Floats
    text: Floats
    unseen: Floats | None = None
    components: Components | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def with_new(self, made: Insertion, counts: Floats, text: Floats) -> ItemTerms:
        """These with the terms of new items.

        Args:
            made: where they lie.
            counts: float32 [n, terms].
            text: float32 [n, dim].

        Raises:
            VocabularyError: the terms are not those of this decision.
        """
        for name, there, new in (("counts", self.counts, counts), ("text vectors", self.text, text)):
            if there.shape[1:] != new.shape[1:]:
                raise VocabularyError(f"{name} of shape {new.shape}; expected {there.shape[1]} columns")
        return ItemTerms(made.rows(self.counts, counts), made.rows(self.text, text), self.unseen, self.components)

    def profile(self, history: Ints) -> Floats:
        """The faded mean of a history's texts, float32 [dim]; positions oldest first."""
        if not len(history) or not self.text.shape[1]:
            return np.zeros(self.text.shape[1], dtype=np.float32)
        weights = FADE ** np.arange(len(history) - 1, -1, -1.0)
        found: Floats = ((weights / weights.sum()) @ self.text[history]).astype(np.float32)
        return found

    def save(self, folder: Path) -> None:
        """Writes the file."""
        tensors = {"counts": self.counts, "text": np.ascontiguousarray(self.text)}
        if self.unseen is not None:
            tensors["unseen"] = self.unseen
        if self.components is not None:
            tensors["text_mean"] = self.components.mean.astype(np.float32)
            tensors["text_directions"] = np.ascontiguousarray(self.components.directions, dtype=np.float32)
        save_file(tensors, folder / FILE)

    @classmethod
    def load(cls, folder: Path, items: int) -> ItemTerms:
        """Reads the file.

        Raises:
            DataError: it is missing, broken, or of another number of items.
        """
        file = folder / FILE
        tensors = read_tensors(file, ("counts", "text"), "the decision's terms of items")
        components = None
        if "text_directions" in tensors and "text_mean" in tensors:
            components = Components(tensors["text_mean"], tensors["text_directions"])
        found = cls(tensors["counts"], tensors["text"], tensors.get("unseen"), components)
        if not found.counts.shape == (items, len(COUNTS)) or len(found.text) != items:
            raise DataError(str(file), f"{len(found)} items", expected=f"{items}, those of the clusters")
        return found


def read_tensors(file: Path, names: Sequence[str], expected: str) -> dict[str, Floats]:
    """All tensors of a safetensors file.

    Raises:
        DataError: it is missing or broken, or lacks one of `names`.
    """
    try:
        tensors: dict[str, Floats] = load_file(file)
        return {name: tensors[name] for name in names} | tensors
    except (OSError, SafetensorError, KeyError) as error:
        problem = f"cannot be read ({' '.join(str(error).split())})"
        raise DataError(str(file), problem, expected=expected) from error


def make_item_terms(histories: Histories, clusters: Clusters) -> ItemTerms:
    """Terms of the clusters' items, from what everybody consumed and from what the items say."""
    place = {item: at for at, item in enumerate(clusters.item_order)}
    at = np.array([place.get(item, -1) for item in histories.item_ids], dtype=np.int64)
    known = at >= 0
    items = len(place)
    times = histories.times[known].astype(np.float64)
    counts = _counts(at[known], times, histories.positives[known], items + 1)  # the last one is nobody's
    counts -= counts[:-1].mean(axis=0)
    seen, unseen = counts[:-1].astype(np.float32), counts[-1].astype(np.float32)
    text = clusters.vectors.get("text")
    components = None if text is None else Components.leading(text, COMPONENTS)
    if text is None or components is None:
        return ItemTerms(seen, np.zeros((items, 0), dtype=np.float32), unseen)
    return ItemTerms(seen, components.of(text), unseen, components)


def _counts(items: Ints, times: Doubles, positives: Bools, size: int) -> Doubles:
    """The counts by name of COUNTS, [size, terms], of events on `items` at `times`."""
    events = np.bincount(items, minlength=size).astype(np.float64)
    liked = np.bincount(items, positives.astype(np.float64), minlength=size)
    share = min(max(liked.sum() / max(events.sum(), 1.0), 1e-6), 1.0 - 1e-6)
    approval = np.log(liked + PRIOR * share) - np.log(events - liked + PRIOR * (1.0 - share))
    newest, oldest = (times.max(), times.min()) if len(times) else (0.0, 0.0)
    span = max(newest - oldest, 1.0)
    recent = np.bincount(items, 0.5 ** ((newest - times) / (span * HALF_LIFE)), minlength=size)
    first = np.full(size, newest)
    np.minimum.at(first, items, times)
    everything = np.log1p(events)
    found = [everything, approval, np.log1p(recent) - everything, -np.log(NEWEST + (newest - first) / span)]
    return np.stack(found, axis=1)


@dataclass(frozen=True)
class Components:
    """Principal components of vectors.

    Attributes:
        mean: [dim].
        directions: [dim, count], the leading first.
    """

    mean: Reals
    directions: Reals

    @classmethod
    def leading(cls, vectors: Floats, count: int) -> Components | None:
        """The leading ones of some vectors; None where all are zero. Rows of zeros (no text) count for nothing."""
        some = np.linalg.norm(vectors, axis=1) > 0
        if not some.any():
            return None
        mean = vectors[some].mean(axis=0, dtype=np.float64)
        covariance: Doubles = np.zeros((vectors.shape[1],) * 2)
        for start in range(0, len(vectors), ROWS):
            part = (vectors[start : start + ROWS] - mean)[some[start : start + ROWS]]
            covariance += part.T @ part
        values, directions = np.linalg.eigh(covariance)
        leading = directions[:, np.argsort(-values)[:count]]
        # An eigenvector's sign is arbitrary: its largest component is made positive.
        leading *= np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
        return cls(mean, leading)

    def of(self, vectors: Floats) -> Floats:
        """Vectors [rows, dim] along the components, scaled to unit length, float32 [rows, count]; zeros stay zeros."""
        some = np.linalg.norm(vectors, axis=1) > 0
        found = np.zeros((len(vectors), self.directions.shape[1]), dtype=np.float32)
        for start in range(0, len(vectors), ROWS):
            rows = slice(start, start + ROWS)
            part = (vectors[rows] - self.mean) @ self.directions
            part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
            found[rows] = np.where(some[rows, None], part, 0.0)
        return found


def leading_components(vectors: Floats, count: int) -> Floats:
    """Vectors along their own leading components, float32 [rows, count]; see `Components`."""
    components = Components.leading(vectors, count)
    return np.zeros((len(vectors), 0), dtype=np.float32) if components is None else components.of(vectors)
