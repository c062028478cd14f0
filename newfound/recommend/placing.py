"""Places new items in a release: leaf, the ranker's vector, the decision's terms, from what they say alone.

Everything is made as the release's own training makes it for an item that nobody has had. A release of before does not
say how it made vectors and text terms; there an item takes the mean of its nearest siblings in the leaf, by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from newfound import schema
from newfound.clusters import Clusters
from newfound.clusters.embed import embed_new_with_text, has_content, unit
from newfound.errors import ConfigError, DataError
from newfound.ranker import Ranker
from newfound.recommend.item_terms import ItemTerms
from newfound.recommend.joint_ranker import load_item_terms
from newfound.release.items import TWIN_COSINE, words_of
from newfound.release.new_items import NewItem, NewItems
from newfound.types import Bools, Floats, Ints

PARTS: Final = ("clusters", "ranker", "decision", "items.parquet")
SIBLINGS: Final = 5


def row_digest(title: str, text: str | None, categories: Sequence[str]) -> str:
    """A sha256 of all that is known of an item: where it differs, the item is placed anew."""
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
        titles: of its items.
    """

    def __init__(
        self, release: str, clusters: Clusters, ranker: Ranker, terms: ItemTerms, titles: Mapping[str, str]
    ) -> None:
        self.release, self._clusters, self._ranker, self._terms = release, clusters, ranker, terms
        self._titles = titles
        self.known = frozenset(clusters.item_order)

    @classmethod
    def load(cls, folder: Path, release: str) -> Placer:
        """Reads a release's folder, or its `PARTS`.

        Raises:
            DataError: a part is missing or broken.
        """
        ranker = Ranker.load(folder / "ranker")
        terms = load_item_terms(folder, len(ranker.items))
        file = folder / "items.parquet"
        try:
            items = pq.read_table(file, columns=[schema.ITEM, schema.TITLE])
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(str(file), "cannot be read", expected="the items of a release") from error
        titles = dict(zip(items[schema.ITEM].to_pylist(), items[schema.TITLE].to_pylist(), strict=True))
        return cls(release, Clusters.load(folder / "clusters"), ranker, terms, titles)

    def place(self, items: pd.DataFrame, made: datetime, source: str, before: NewItems | None = None) -> NewItems:
        """Places items that the release does not know.

        Args:
            items: schema.ITEMS, at least one.
            made: now.
            source: where they come from, for errors.
            before: those that it has already.

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
        twins = self._twins(items, leaves, text, before)
        rows = [
            NewItem(item=item, title=title, leaf=leaf, twin=twin, row=row_digest(title, said, categories))
            for (item, title, said, categories), leaf, twin in zip(rows_of(items), leaves, twins, strict=True)
        ]
        return NewItems(
            self.release,
            made,
            tuple(rows),
            _means(self._ranker.index.vectors, siblings) if vectors is None else vectors.astype(np.float32),
            np.tile(_unseen(self._terms), (len(items), 1)),
            _texts(self._terms, text, siblings, len(items)),
        )

    def _twins(
        self, items: pd.DataFrame, leaves: Sequence[str], text: Floats | None, before: NewItems | None
    ) -> list[str | None]:
        """A near-duplicate of each item: one of any title with the same words, or one of its interest by its text."""
        titles = {**self._titles, **{one.item: one.title for one in (before.items if before else ())}}
        same = {words: item for item, title in titles.items() if title != item and (words := words_of(title))}
        texts, level = self._clusters.vectors.get("text"), self._clusters.interface_level
        found: list[str | None] = []
        for at, (item, title, *_) in enumerate(rows_of(items)):
            words = words_of(title)
            twin = same.setdefault(words, item) if words and title != item else item
            if twin == item and text is not None and texts is not None and text[at].any():
                start, stop = self._clusters.slice_of(self._clusters.ancestor_of(leaves[at], level))
                near = unit(texts[start:stop]) @ text[at]
                if near.max() >= TWIN_COSINE:
                    twin = self._clusters.item_order[start + int(near.argmax())]
            found.append(None if twin == item else twin)
        return found


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
