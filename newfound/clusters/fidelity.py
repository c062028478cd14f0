"""Description fidelity: whether a cluster's description leads to its items, measured on items it was not written from.

The share of held-out items whose own cluster is the nearest to their text among all descriptions (or among the ten
nearest), by the sentence encoder of the clusters. Up to ten items a cluster are held out of the description, and at
most half of them. Beside it stand chance and descriptions that are ids alone.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from newfound.clusters.describe import Describer
from newfound.clusters.embed import Embedding, encoder_of
from newfound.clusters.tree import Labels
from newfound.types import Bools, Floats

HELD_OUT: Final = 10
WARN_BELOW: Final = 0.5  # of fidelity at ten
IDS: Final = 3  # item ids in a description that is ids alone

log = logging.getLogger("newfound.clusters")


def description_fidelity(describer: Describer, labels: Labels, embedding: Embedding, seed: int) -> dict[str, float]:
    """Fidelity at one and ten beside chance and ids alone; nothing where no item has text.

    Args:
        describer: that wrote the descriptions; it writes them again without the held-out items.
        labels: [n] interface labels.
        embedding: text vectors, and their encoder.
        seed: of the choice of items.
    """
    encode = encoder_of(embedding)
    if embedding.text is None or encode is None:
        return {}
    held = held_out(labels, seed)
    kept = np.flatnonzero(~held)
    texts = describer.level(labels, without=held)
    ids = [", ".join(describer.ids[item] for item in kept[labels[kept] == label][:IDS]) for label in range(len(texts))]
    described = held & embedding.text.any(axis=1)
    if not described.any():
        return {}
    vectors, own = embedding.text[described], labels[described]
    at_one, at_ten = _recall(vectors, encode(texts), own)
    ids_at_one, ids_at_ten = _recall(vectors, encode([f"items {text}" for text in ids]), own)
    if at_ten < WARN_BELOW:
        log.warning(
            "descriptions lead to their cluster for %.2f of the items at ten: little language is in them", at_ten
        )
    return {
        "description_fidelity@1": at_one,
        "description_fidelity@10": at_ten,
        "description_fidelity.chance@10": min(1.0, 10 / len(texts)),
        "description_fidelity.ids@1": ids_at_one,
        "description_fidelity.ids@10": ids_at_ten,
    }


def held_out(labels: Labels, seed: int) -> Bools:
    """[n]: up to ten items of each cluster, drawn at random, and at most half of them."""
    draw = np.random.default_rng(seed)
    out = np.zeros(len(labels), dtype=np.bool_)
    for label in range(int(labels.max()) + 1):
        members = draw.permutation(np.flatnonzero(labels == label))
        out[members[: min(HELD_OUT, len(members) // 2)]] = True
    return out


def _recall(items: Floats, descriptions: Floats, own: Labels) -> tuple[float, float]:
    """Shares of items [m, dim] whose own description [N, dim] is the nearest, and among the ten nearest."""
    near = items @ descriptions.T
    rank = (near > near[np.arange(len(own)), own][:, None]).sum(axis=1)
    return float((rank < 1).mean()), float((rank < 10).mean())
