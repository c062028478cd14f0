"""Sequence model over clusters, a baseline of the planner: the ranker's architecture over clusters instead of items.

It learns from the training users' walks of newly liked clusters, so that every next cluster is a novel one, and with
the same contexts withheld: a walk is broken before a transition whose context is held out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from newfound import schema
from newfound.config import RankerConfig
from newfound.evaluation.baselines import Baseline, tune
from newfound.evaluation.moments import Events
from newfound.transitions.artifact import Transitions
from newfound.transitions.mine import interest_events
from newfound.types import Reals

SPACE: dict[str, Sequence[Any]] = {"dropout": (0.3, 0.5)}
LENGTH = 100


def training_walks(histories: Path, clusters: Path, transitions: Transitions) -> list[list[int]]:
    """Newly liked clusters of every training user in order, broken before withheld transitions; single ones dropped."""
    events = interest_events(histories, clusters)
    liked = events.filter(events[schema.POSITIVE])
    first = liked.group_by(schema.USER, schema.CLUSTER).agg(place=liked[schema.POSITION].min())
    walks = first.order_by([schema.USER, "place"]).select(schema.USER, schema.CLUSTER).to_pyarrow()
    learners, withheld = transitions.learners(), transitions.withheld_steps()
    pieces: list[list[int]] = []
    last = None
    for user, cluster in zip(walks[schema.USER].to_pylist(), walks[schema.CLUSTER].to_pylist(), strict=True):
        if user in learners:
            if user != last or (user, cluster) in withheld:
                pieces.append([])
            last = user
            pieces[-1].append(transitions.clusters.index[cluster])
    return [piece for piece in pieces if len(piece) > 1]


@contextmanager
def _quietly(name: str) -> Iterator[None]:
    """Without the progress of a training that is not the ranker's."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class ClusterSequence:
    """A transformer over newly liked clusters.

    Args:
        walks: training sequences.
        n: clusters.
        epochs: at most; the best is chosen on each walk's last cluster.
        seed: of everything random.
        options: of `RankerConfig`.
    """

    def __init__(self, walks: list[list[int]], n: int, epochs: int, seed: int, **options: Any) -> None:
        from newfound.ranker.data import Sequences
        from newfound.ranker.train import fit

        config = RankerConfig(max_length=LENGTH, blocks=1, epochs=epochs, patience=4, batch_tokens=1024, **options)
        with _quietly("newfound.ranker"):
            self._model = fit(Sequences.of(walks), n, config, seed).model

    def scores(self, events: Events) -> Reals:
        import torch

        from newfound.ranker.data import Sequences

        journeys = events.journeys
        rows = []
        for event in events.at.tolist():
            start = int(journeys.offsets[journeys.row[event]])
            clusters = journeys.clusters[start:event][journeys.positives[start:event]]
            known = clusters[clusters >= 0]
            rows.append(known[np.sort(np.unique(known, return_index=True)[1])].tolist())
        sequences = Sequences.of(rows)
        found = np.zeros((len(rows), len(journeys.order)), dtype=np.float32)
        with torch.inference_mode():
            vectors = self._model.item_vectors()
            for start in range(0, len(rows), 512):
                users = np.arange(start, min(start + 512, len(rows)))
                queries = self._model.encoder.last_query(vectors, torch.from_numpy(sequences.padded(users, LENGTH)))
                found[users] = (queries @ vectors.T).numpy()
        return found


def sequence_baseline(
    histories: Path, folder: Path, transitions: Transitions, validation: Events, epochs: int, seed: int
) -> Baseline:
    """Trains the sequence model with every combination of a small space and keeps what is best on validation users."""
    walks = training_walks(histories, folder, transitions)
    make = partial(ClusterSequence, walks, len(transitions.clusters.interface), epochs, seed)
    sees = "training users' walks, the whole history"
    return tune("cluster_sequence", "Sequence model over clusters", make, SPACE, validation, sees=sees)
