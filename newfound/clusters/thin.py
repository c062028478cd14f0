"""Clusters of too few items: dissolved into their neighbours, with a large one halved instead."""

from __future__ import annotations

from typing import Final

import numpy as np

from newfound.clusters.tree import Labels, Weights, weighted_means
from newfound.types import Bools, Floats

LEAST_ITEMS: Final = 3  # fewer are no interest but an item


def without_thin(vectors: Floats, labels: Labels, load: Weights, least: int = LEAST_ITEMS) -> Labels:
    """Clusters of fewer than `least` items join the nearest one, and the most loaded that can be is halved instead.

    Args:
        vectors: [n, dim].
        labels: [n] from 0, none empty.
        load: [n], positive.
        least: items that a cluster has at least, as far as there are enough.

    Returns:
        [n] labels, as many as before.
    """
    labels = labels.copy()
    k = int(labels.max()) + 1
    if k * least > len(labels):
        return labels
    for _ in range(k):
        sizes = np.bincount(labels, minlength=k)
        thin = int(sizes.argmin())
        if sizes[thin] >= least:
            break
        carried = np.where(sizes >= 2 * least, np.bincount(labels, load, k), -np.inf)
        wide = int(carried.argmax())
        if not np.isfinite(carried[wide]):
            break
        centres = weighted_means(vectors, labels, load, k)
        for item in np.flatnonzero(labels == thin):
            away = ((centres - vectors[item]) ** 2).sum(axis=1)
            away[thin] = np.inf
            labels[item] = away.argmin()
        members = np.flatnonzero(labels == wide)
        labels[members[_cut(vectors[members], least)]] = thin
    return labels


def _cut(vectors: Floats, least: int) -> Bools:
    """[n]: the half beyond the middle along the widest direction, at least `least` items on either side."""
    centred = vectors - vectors.mean(axis=0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    place = np.argsort(np.argsort(along, kind="stable"), kind="stable")
    size = int(np.clip((along <= 0).sum(), least, len(along) - least))
    return np.asarray(place >= size)
