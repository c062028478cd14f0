"""What the planner is taught, and the moments by which its checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig
from newfound.errors import DataError
from newfound.frequency import Backoff, FrequencyModel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lessons:
    """Contexts [U, K] as cluster indices, how often each is drawn [U], and the next clusters' distribution [U, N]."""

    contexts: Ints
    weights: Floats
    targets: Floats

    def __len__(self) -> int:
        return len(self.contexts)


@dataclass(frozen=True)
class Moments:
    """Held-out transitions: contexts [M, K], the cluster that came [M], and all clusters that the user knew [M, N]."""

    contexts: Ints
    labels: Ints
    known: Bools

    def __len__(self) -> int:
        return len(self.labels)


def read_lessons(transitions: Path, clusters: Clusters, config: FinetuneConfig) -> Lessons:
    """The training set: contexts that are not withheld, of training users, with smoothed distributions.

    Raises:
        DataError: the training set is empty.
    """
    contexts, labels, weights = training_set(transitions / "balanced.parquet", clusters)
    backoff = Backoff(context=config.smoothing)
    model = FrequencyModel(contexts, labels, len(clusters.interface), weights, backoff)
    unique = model.contexts()
    return Lessons(
        contexts=unique,
        weights=np.sqrt(model.context_mass).astype(np.float32),
        targets=model.distribution(unique),
    )


def training_set(file: Path, clusters: Clusters) -> tuple[Ints, Ints, Floats]:
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if not len(table):
        raise DataError(str(file), "no transition", expected="at least one positive transition of a training user")
    contexts = np.array([[clusters.index[c] for c in row] for row in table[schema.CONTEXT].to_pylist()], dtype=np.int64)
    labels = np.array([clusters.index[c] for c in table[schema.NEXT].to_pylist()], dtype=np.int64)
    return contexts, labels, table["weight"].to_numpy().astype(np.float32)


def read_moments(file: Path, clusters: Clusters, split: str, at_most: int, seed: int) -> Moments:
    """Positive transitions of one group of users, a seeded sample of at most so many.

    A user's known clusters are those that their earlier transitions name.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(file, filters=[(schema.SPLIT, "=", split)])
    frame = table.to_pandas().sort_values(schema.USER, kind="stable")
    n = len(clusters.interface)
    contexts, labels, known = [], [], []
    for _, group in frame.groupby(schema.USER, sort=True):
        seen = np.zeros(n, dtype=bool)
        for context, label, positive in zip(
            group[schema.CONTEXT], group[schema.NEXT], group[schema.POSITIVE], strict=True
        ):
            places = [clusters.index[c] for c in context]
            seen[places] = True
            target = clusters.index[label]
            if positive and not seen[target]:
                contexts.append(places)
                labels.append(target)
                known.append(seen.copy())
            seen[target] = True
    width = len(contexts[0]) if contexts else 1
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[:at_most])
    return Moments(
        contexts=np.array(contexts, dtype=np.int64).reshape(-1, width)[chosen],
        labels=np.array(labels, dtype=np.int64)[chosen],
        known=np.array(known, dtype=bool).reshape(-1, n)[chosen],
    )


def draw_batches(lessons: Lessons, size: int, block: int, seed: int) -> Iterator[Ints]:
    """Endless batches of lesson indices, [size] each.

    Each pass draws as many lessons as there are, by weight with replacement, and hands them out in blocks that share
    their first interest, so that the model reads it once for a block.
    """
    rng = np.random.default_rng(seed)
    share = lessons.weights / lessons.weights.sum()
    pending: list[Ints] = []
    while True:
        drawn = np.unique(
            rng.choice(
                len(lessons), size=max(len(lessons), size), p=share.astype(np.float64) / share.sum(dtype=np.float64)
            )
        )
        drawn = drawn[rng.permutation(len(drawn))]
        drawn = drawn[np.argsort(lessons.contexts[drawn, 0], kind="stable")]
        edges = np.flatnonzero(np.diff(lessons.contexts[drawn, 0])) + 1
        blocks = [b for run in np.split(drawn, edges) for b in np.split(run, range(block, len(run), block))]
        pending.extend(blocks[i] for i in rng.permutation(len(blocks)))
        batch: list[int] = []
        while pending:
            batch.extend(pending.pop().tolist())
            if len(batch) >= size:
                yield np.array(batch[:size])
                batch = batch[size:]


def rank_of(scores: Floats, moments: Moments) -> Ints:
    """Each true cluster's rank, 0 is best, among those that the user did not know; ties count against it."""
    open_scores = np.where(moments.known, -np.inf, scores)
    truth = np.take_along_axis(open_scores, moments.labels[:, None], axis=1)
    better: Ints = (open_scores >= truth).sum(axis=1) - 1
    return better


def ranking(scores: Floats, moments: Moments) -> dict[str, float]:
    """NovelRecall@1 and @10, the mean reciprocal rank, and chance beside them."""
    ranks = rank_of(scores, moments)
    choices = np.maximum((~moments.known).sum(axis=1), 1)
    return {
        "novel_recall@1": float((ranks < 1).mean()),
        "novel_recall@10": float((ranks < 10).mean()),
        "mrr": float((1 / (1 + ranks)).mean()),
        "chance@1": float((1 / choices).mean()),
        "chance@10": float(np.minimum(1, 10 / choices).mean()),
    }
