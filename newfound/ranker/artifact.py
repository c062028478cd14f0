"""The ranker as an artifact: what serving and evaluation load.

A folder of `ranker.safetensors` (encoder, item vectors in cluster order, co-occurrence) and `ranker.json`
(configuration, item order, each node's slice, digests), by which the folder is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from newfound.config import RankerConfig
from newfound.errors import DataError, VocabularyError
from newfound.files import new_folder
from newfound.ranker.cooccurrence import CoOccurrence
from newfound.ranker.data import PAD
from newfound.ranker.index import NO_BONUS, NO_ITEMS, Best, Bonus, EncodedHistory, ItemIndex, disjoint
from newfound.ranker.insertion import Insertion
from newfound.ranker.model import Encoder
from newfound.types import Floats, Ints, Span

FORMAT: Final = 1
RECORD: Final = "ranker.json"
TENSORS: Final = "ranker.safetensors"
MEMORY: Final = ("offsets", "neighbours", "strengths")
PROJECTION: Final = "projection"


class Ranker:
    """Ranks items after a history of item ids: all of them, or those of some clusters.

    A history's unknown items are passed over. After an empty history, or one of unknown items alone, items rank by how
    often they were consumed in training.

    Args:
        encoder: the transformer.
        vectors: unit item vectors, float32 [items, dim], in the order of `items`.
        popularity: float32 [items], what items score after an empty history.
        cooccurrence: the count part of the score.
        items: item ids, in cluster order.
        slices: each node's (start, stop) in `items`, at every level of the tree.
        info: the record.
        projection: float32 [dim, content dim], what makes a vector of an item's content alone (`vectors_of_content`);
            None where the ranker knows no content, and in artifacts of before.
    """

    def __init__(
        self,
        encoder: Encoder,
        vectors: Floats,
        popularity: Floats,
        cooccurrence: CoOccurrence,
        items: list[str],
        slices: dict[str, Span],
        info: dict[str, Any],
        projection: Floats | None = None,
    ) -> None:
        self.items, self.slices, self.info, self.projection = items, slices, info, projection
        self.encoder, self.cooccurrence, self.popularity = encoder.eval(), cooccurrence, popularity
        self.index = ItemIndex(vectors)
        self._vectors = torch.from_numpy(vectors)
        self._position = {item: at for at, item in enumerate(items)}

    @classmethod
    def load(cls, path: str | Path) -> Ranker:
        """Reads an artifact folder.

        Raises:
            DataError: a file is missing or broken.
        """
        folder = Path(path)
        try:
            info = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            tensors = load_file(folder / TENSORS)
            if info["format"] != FORMAT:
                raise DataError(str(folder / RECORD), f"format {info['format']!r}", expected=f"format {FORMAT}")
            encoder = Encoder(RankerConfig.model_validate(info["config"]))
            encoder.load_state_dict(
                {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
            )
            cooccurrence = CoOccurrence(
                *(tensors[f"memory.{name}"].numpy() for name in ("offsets", "neighbours", "strengths")),
                **info["memory"],
            )
            vectors, popularity = tensors["vectors"].numpy(), tensors["popularity"].numpy()
            items, slices = info["items"], {node: (start, stop) for node, (start, stop) in info["slices"].items()}
        except FileNotFoundError as error:
            raise DataError(str(error.filename or folder), "file is missing", expected="a ranker artifact") from error
        except (OSError, RuntimeError, SafetensorError, ValueError, KeyError, TypeError) as error:
            problem = f"cannot be read ({' '.join(str(error).split())})"
            raise DataError(str(folder), problem, expected="a ranker artifact") from error
        if not len(items) == len(vectors) == len(popularity) == len(cooccurrence.offsets) - 1:
            raise DataError(str(folder), "tensors and item order differ in length", expected="files made together")
        projection = tensors[PROJECTION].numpy() if PROJECTION in tensors else None
        return cls(encoder, vectors, popularity, cooccurrence, items, slices, info, projection)

    def save(self, out: str | Path, training: Mapping[str, Any] | None = None) -> None:
        """Writes the artifact folder, whole or not at all.

        Args:
            out: the folder.
            training: how the ranker was trained, for training.json.
        """
        tensors = {f"encoder.{name}": value.contiguous() for name, value in self.encoder.state_dict().items()}
        tensors |= {"vectors": self._vectors, "popularity": torch.from_numpy(self.popularity)}
        if self.projection is not None:
            tensors[PROJECTION] = torch.from_numpy(np.ascontiguousarray(self.projection))
        for name in MEMORY:
            tensors[f"memory.{name}"] = torch.from_numpy(getattr(self.cooccurrence, name))
        counts = {name: getattr(self.cooccurrence, name) for name in ("recent", "decay", "weight", "rarity")}
        record = {**self.info, "format": FORMAT, "memory": counts, "slices": self.slices, "items": self.items}
        with new_folder(out, RECORD) as folder:
            save_file(tensors, folder / TENSORS)
            (folder / RECORD).write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
            if training is not None:
                (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")

    def top_k(
        self,
        histories: Sequence[Sequence[str]],
        clusters: Sequence[Sequence[str] | None],
        k: int,
        exclude: Sequence[Sequence[str]],
    ) -> list[list[tuple[str, float]]]:
        """The k best items of each request's own clusters, exactly (see `newfound.ranker.index`).

        Args:
            histories: item ids, oldest first.
            clusters: nodes of any level, in any mixture; none at all gives no items, None stands for the catalogue.
            k: most items a request gets; it gets fewer where its clusters hold fewer.
            exclude: item ids never to be returned, usually what the user has had. Unknown ones are passed over.

        Returns:
            Per request (item id, score), best first; of equal scores, the earlier in `items` first.

        Raises:
            VocabularyError: a cluster is not one of those that the ranker was made for.
            ValueError: the arguments differ in length, or k is negative.
        """
        if not len(histories) == len(clusters) == len(exclude):
            raise ValueError(f"{len(histories)} histories, {len(clusters)} cluster lists, {len(exclude)} exclusions")
        known = [self.positions(history) for history in histories]
        spans = [self._spans(nodes) for nodes in clusters]
        out = [self.positions(items) for items in exclude]
        bonus = [self.bonus(history, wanted) for history, wanted in zip(known, spans, strict=True)]
        best = self.index.top_k(self.queries(known), spans, k, out, bonus)
        return [self._named(answer) for answer in best]

    def best_of_clusters(
        self, history: EncodedHistory, clusters: Sequence[str], wanted: Sequence[int], hidden: Ints
    ) -> list[list[tuple[str, float]]]:
        """The best items of each cluster on its own, what fills a slate.

        Args:
            history: encoded, with its bonus for all items.
            clusters: nodes of any level.
            wanted: of each cluster, the most items.
            hidden: positions never to be returned.

        Returns:
            Per cluster, (item id, score), best first.

        Raises:
            VocabularyError: a cluster is not one of those that the ranker was made for.
        """
        found = self.index.top_k_per_span(history.query, self._spans(clusters), wanted, hidden, history.bonus)
        return [self._named(best) for best in found]

    def score_all(self, histories: Sequence[Sequence[str]]) -> Floats:
        """Scores of every item, float32 [B, items]; the last bits may differ from those of `top_k`."""
        known = [self.positions(history) for history in histories]
        scores: Floats = self.queries(known) @ self.index.vectors.T
        for row, history in enumerate(known):
            bonus = self.bonus(history, [(0, len(self.items))])
            scores[row, bonus.items] += bonus.values
        return scores

    def vectors_of_content(self, content: Floats) -> Floats | None:
        """Unit vectors [n, dim] of items that nobody has consumed, as training gives them; None without `projection`.

        Args:
            content: their content vectors as the clusters embed them, of unit length [n, content dim].
        """
        if self.projection is None:
            return None
        found = content @ self.projection.T
        vectors: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-12))
        return vectors

    def with_new(self, items: Sequence[str], leaves: Sequence[str], vectors: Floats) -> tuple[Ranker, Insertion]:
        """This ranker with further items, which nobody has consumed, at the end of their leaves.

        Encoder and co-occurrence are shared with this one. The answer is for ranking, not for `save`.

        Args:
            items: ids.
            leaves: the node of each.
            vectors: float32 [n, dim], of unit length.

        Returns:
            The ranker, and where its new rows lie.

        Raises:
            VocabularyError: a leaf or the vectors' dimension is not one of this ranker's, or it knows an item already.
        """
        known = next((item for item in items if item in self._position), None)
        if known is not None:
            raise VocabularyError(f"item {known!r} is new, but the ranker was made with it")
        if vectors.shape[1:] != self.index.vectors.shape[1:]:
            raise VocabularyError(f"vectors of shape {vectors.shape}; expected {self.index.vectors.shape[1]} columns")
        made = Insertion.at_ends([stop for _, stop in self._spans(leaves)], items)
        never = np.full(len(items), self.popularity.min(), dtype=np.float32)  # no item of the release had less
        ranker = Ranker(
            self.encoder,
            made.rows(self.index.vectors, vectors),
            made.rows(self.popularity, never),
            self.cooccurrence.with_new(made.places),
            made.names(self.items, items),
            {node: made.moved_span(span) for node, span in self.slices.items()},
            self.info,
            self.projection,
        )
        return ranker, made

    def positions(self, items: Sequence[str]) -> Ints:
        """Positions of those items that are known, in the order given."""
        at = (self._position.get(item, PAD) for item in items)
        return np.array([place for place in at if place != PAD], dtype=np.int64)

    def queries(self, histories: Sequence[Ints]) -> Floats:
        """Queries of histories of positions, float32 [B, dim]; zeros for an empty one."""
        cut = [history[-self.encoder.length :] for history in histories]
        padded = np.full((len(cut), max(map(len, cut), default=0)), PAD, dtype=np.int64)
        for row, history in enumerate(cut):
            padded[row, : len(history)] = history
        with torch.inference_mode():
            answer: Floats = self.encoder.last_query(self._vectors, torch.from_numpy(padded)).numpy()
        return answer

    def bonus(self, history: Ints, spans: Sequence[Span]) -> Bonus:
        """Part of the score beside the product with the query; after an empty history, of the spans' items alone."""
        if not len(history):
            items = np.concatenate([NO_ITEMS, *(np.arange(*span) for span in disjoint(spans, len(self.items)))])
            return Bonus(items, self.popularity[items])
        items, values = self.cooccurrence.bonus(history)
        return Bonus(items, values) if len(items) else NO_BONUS

    def _named(self, best: Best) -> list[tuple[str, float]]:
        return [(self.items[at], score) for at, score in zip(best.items.tolist(), best.scores.tolist(), strict=True)]

    def _spans(self, nodes: Sequence[str] | None) -> list[Span]:
        if nodes is None:
            return [(0, len(self.items))]
        try:
            return [self.slices[node] for node in nodes]
        except KeyError as error:
            raise VocabularyError(f"cluster {error.args[0]!r} is not one that the ranker was made for") from error
