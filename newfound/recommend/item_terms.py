"""The decision's terms of items beside the ranker's: how many consume and like them, since when, what they say.

A folder's `items.safetensors`, in the clusters' item order. A history's text term is the dot product of an item's text
vector with the faded mean of those of the history; both are the leading components of the clusters' text vectors.
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
from newfound.errors import DataError
from newfound.features.histories import Histories
from newfound.types import Bools, Doubles, Floats, Ints

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
    """

    counts: Floats
    text: Floats

    def __len__(self) -> int:
        return len(self.counts)

    def profile(self, history: Ints) -> Floats:
        """The faded mean of a history's texts, float32 [dim]; positions oldest first."""
        if not len(history) or not self.text.shape[1]:
            return np.zeros(self.text.shape[1], dtype=np.float32)
        weights = FADE ** np.arange(len(history) - 1, -1, -1.0)
        found: Floats = ((weights / weights.sum()) @ self.text[history]).astype(np.float32)
        return found

    def save(self, folder: Path) -> None:
        """Writes the file."""
        save_file({"counts": self.counts, "text": np.ascontiguousarray(self.text)}, folder / FILE)

    @classmethod
    def load(cls, folder: Path, items: int) -> ItemTerms:
        """Reads the file.

        Raises:
            DataError: it is missing, broken, or of another number of items.
        """
        file = folder / FILE
        tensors = read_tensors(file, ("counts", "text"), "the decision's terms of items")
        found = cls(tensors["counts"], tensors["text"])
        if not found.counts.shape == (items, len(COUNTS)) or len(found.text) != items:
            raise DataError(str(file), f"{len(found)} items", expected=f"{items}, those of the clusters")
        return found


def read_tensors(file: Path, names: Sequence[str], expected: str) -> dict[str, Floats]:
    """The tensors of a safetensors file.

    Raises:
        DataError: it is missing or broken, or lacks one of `names`.
    """
    try:
        tensors = load_file(file)
        return {name: tensors[name] for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        problem = f"cannot be read ({' '.join(str(error).split())})"
        raise DataError(str(file), problem, expected=expected) from error


def make_item_terms(histories: Histories, clusters: Clusters) -> ItemTerms:
    """Terms of the clusters' items, from what everybody consumed and from what the items say."""
    place = {item: at for at, item in enumerate(clusters.item_order)}
    at = np.array([place.get(item, -1) for item in histories.item_ids], dtype=np.int64)
    known = at >= 0
    items = len(place)
    counts = _counts(at[known], histories.times[known].astype(np.float64), histories.positives[known], items)
    counts -= counts.mean(axis=0)
    text = clusters.vectors.get("text")
    vectors = np.zeros((items, 0), dtype=np.float32) if text is None else leading_components(text, COMPONENTS)
    return ItemTerms(counts.astype(np.float32), vectors)


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


def leading_components(vectors: Floats, count: int) -> Floats:
    """The leading principal components of some vectors, scaled to unit length, float32 [rows, count].

    Rows of zeros (no text) stay zeros and count for nothing.
    """
    some = np.linalg.norm(vectors, axis=1) > 0
    if not some.any():
        return np.zeros((len(vectors), 0), dtype=np.float32)
    mean = vectors[some].mean(axis=0, dtype=np.float64)
    covariance: Doubles = np.zeros((vectors.shape[1],) * 2)
    for start in range(0, len(vectors), ROWS):
        part = (vectors[start : start + ROWS] - mean)[some[start : start + ROWS]]
        covariance += part.T @ part
    values, directions = np.linalg.eigh(covariance)
    leading = directions[:, np.argsort(-values)[:count]]
    # An eigenvector's sign is arbitrary: its largest component is made positive.
    leading *= np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    found = np.zeros((len(vectors), leading.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), ROWS):
        rows = slice(start, start + ROWS)
        part = (vectors[rows] - mean) @ leading
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
        found[rows] = np.where(some[rows, None], part, 0.0)
    return found
