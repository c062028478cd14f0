"""Places new items in a release: leaf, the ranker's vector, the decision's terms, from what they say alone.

Everything is made as the release's own training makes it for an item that nobody has had. A release of before does not
say how it made vectors and text terms; there an item takes the mean of its nearest siblings in the leaf, by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from newfound import schema
from newfound.clusters import Clusters
from newfound.clusters.embed import embed_new_with_text, has_content, unit
from newfound.errors import ConfigError, DataError
from newfound.ranker import Ranker
from newfound.recommend.item_terms import ItemTerms
from newfound.recommend.joint_ranker import load_item_terms
from newfound.release.new_items import NewItem, NewItems
from newfound.types import Bools, Floats, Ints

PARTS: Final = ("clusters", "ranker", "decision")
SIBLINGS: Final = 5


def row_digest(title: str, text: str | None, categories: Sequence[str]) -> str:
    """What is known of an item, as a sha256: whether it must be placed anew."""
    known = json.dumps([title, text, list(categories)], ensure_ascii=False)
    return hashlib.sha256(known.encode()).hexdigest()


def rows_of(items: pd.DataFrame) -> Iterator[tuple[str, str, str | None, list[str]]]:
    """Id, title, text and categories of each item."""
    for item, title, text, categories in items[schema.ITEMS.names].itertuples(index=False):
        yield item, title, text if isinstance(text, str) else None, list(categories)


class Placer:
    """A release as new items are placed in it.

    Args:
        release: its id.
        clusters: its tree, with the encoder of new items.
        ranker: its ranker.
        terms: the decision's terms of its items.
    """

    def __init__(self, release: str, clusters: Clusters, ranker: Ranker, terms: ItemTerms) -> None:
        self.release, self._clusters, self._ranker, self._terms = release, clusters, ranker, terms
        self.known = frozenset(clusters.item_order)

    @classmethod
    def load(cls, folder: Path, release: str) -> Placer:
        """Reads a release's folder, or its `PARTS`.

        Raises:
            DataError: a part is missing or broken.
        """
        ranker = Ranker.load(folder / "ranker")
        terms = load_item_terms(folder, len(ranker.items))
        return cls(release, Clusters.load(folder / "clusters"), ranker, terms)

    def place(self, items: pd.DataFrame, made: datetime, source: str) -> NewItems:
        """Places items that the release does not know.

        Args:
            items: schema.ITEMS, at least one.
            made: now.
            source: where they come from, for errors.

        Raises:
            DataError: an item has nothing but its id, or says nothing that the release's clusters read.
            ConfigError: the release was made without text and categories, or its text model cannot be loaded.
        """
        dim = int(self._clusters.info.get("embedding", {}).get("content_dim", 0))
        if not dim:
            problem = "made without text or categories, so a new item cannot be placed in it"
            raise ConfigError(f"release {self.release}: {problem}")
        _check_content(items, has_content(items), source)
        places, text = embed_new_with_text(self._clusters, items)
        leaves, content = self._clusters.assign(places), unit(places[:, :dim])
        _check_content(items, np.asarray(content.any(axis=1)), source)
        siblings = [_siblings(self._clusters, leaf, one, dim) for leaf, one in zip(leaves, content, strict=True)]
        vectors = self._ranker.vectors_of_content(content)
        rows = [
            NewItem(item=item, title=title, leaf=leaf, row=row_digest(title, said, categories))
            for (item, title, said, categories), leaf in zip(rows_of(items), leaves, strict=True)
        ]
        return NewItems(
            self.release,
            made,
            tuple(rows),
            _means(self._ranker.index.vectors, siblings) if vectors is None else vectors.astype(np.float32),
            np.tile(_unseen(self._terms), (len(items), 1)),
            _texts(self._terms, text, siblings, len(items)),
        )


def _check_content(items: pd.DataFrame, there: Bools, source: str) -> None:
    if not there.all():
        item = items[schema.ITEM].iloc[int(np.argmin(there))]
        expected = "a title, a text or categories that the release's clusters read"
        raise DataError(source, f"nothing says where item {item!r} belongs", column=schema.TITLE, expected=expected)


def _siblings(clusters: Clusters, leaf: str, content: Floats, dim: int) -> Ints:
    """Positions of the leaf's nearest items by content, at most `SIBLINGS`."""
    start, stop = clusters.slice_of(leaf)
    near = unit(clusters.item_vectors[start:stop, :dim]) @ content
    found: Ints = start + np.argsort(-near, kind="stable")[:SIBLINGS]
    return found


def _means(vectors: Floats, siblings: Sequence[Ints]) -> Floats:
    """The mean of each one's siblings, scaled to unit length; zero where theirs are."""
    return unit(np.stack([vectors[places].mean(axis=0) for places in siblings]))


def _unseen(terms: ItemTerms) -> Floats:
    """Counts of an item that nobody has had; in a release of before, those of its least popular item."""
    return terms.unseen if terms.unseen is not None else terms.counts[int(terms.counts[:, 0].argmin())]


def _texts(terms: ItemTerms, text: Floats | None, siblings: Sequence[Ints], items: int) -> Floats:
    if text is None or not terms.text.shape[1]:
        return np.zeros((items, terms.text.shape[1]), dtype=np.float32)
    if terms.components is not None:
        return terms.components.of(text)
    found: Floats = _means(terms.text, siblings) * (np.linalg.norm(text, axis=1, keepdims=True) > 0)
    return found
