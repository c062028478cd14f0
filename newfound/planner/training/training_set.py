"""Training set of the planner: contexts, how often each is drawn, and the distribution over what comes next."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig
from newfound.errors import DataError
from newfound.planner.training.hints import fit_hint_boost
from newfound.transitions.choice_model import Choices, fit_choices, kinship_of
from newfound.types import Bools, Floats, Ints

NO_HINT = -1


@dataclass(frozen=True)
class TrainingSet:
    """U contexts, each with a distribution over the N clusters.

    Args:
        contexts: [U, K] cluster indices.
        weights: [U], how often each is drawn.
        targets: [U, N] probabilities of the next cluster; 0 for those of the context itself.
        hint_boost: log-odds boost of a hinted cluster, in nats; None where no prompt has a hint.
    """

    contexts: Ints
    weights: Floats
    targets: Floats
    hint_boost: float | None = None

    def __len__(self) -> int:
        return len(self.contexts)

    def draw_successor(self, row: int, rng: np.random.Generator) -> int:
        """A cluster that may follow: half by the context's distribution, half any, so that none stays unknown."""
        target = self.targets[row].astype(np.float64)
        possible = target > 0
        share = 0.5 * target / target.sum() + 0.5 * possible / possible.sum()
        return int(rng.choice(len(share), p=share / share.sum()))

    def hinted_targets(self, rows: Ints, hints: Ints) -> Floats:
        """[B, N] targets of some contexts after prompts with hints, or `NO_HINT`, which get their boost."""
        targets = self.targets[rows]
        hinted = np.flatnonzero(hints != NO_HINT)
        targets[hinted, hints[hinted]] *= math.exp(self.hint_boost or 0.0)
        targets[hinted] /= targets[hinted].sum(axis=1, keepdims=True)
        return targets


def read_training_set(transitions: Path, clusters: Clusters, config: FinetuneConfig, seed: int) -> TrainingSet:
    """The balanced contexts, each with the distribution of a choice model fitted to training users.

    Raises:
        DataError: the training set is empty.
    """
    contexts, labels, weights = training_set(transitions / "balanced.parquet", clusters)
    choices = read_choices(transitions, clusters)
    model = fit_choices(choices, config.teacher_penalty, config.teacher_epochs, seed)
    unique, context = np.unique(contexts, axis=0, return_inverse=True)
    drawn = np.bincount(context.reshape(-1), weights=weights, minlength=len(unique))
    return TrainingSet(
        contexts=unique,
        weights=np.sqrt(drawn).astype(np.float32),
        targets=model.distribution(unique),
        hint_boost=fit_hint_boost(choices, config, seed) if config.hint_share else None,
    )


def training_set(file: Path, clusters: Clusters) -> tuple[Ints, Ints, Floats]:
    """`balanced.parquet` as indices: contexts [T, K], labels [T], weights [T].

    Raises:
        DataError: it holds nothing.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if not len(table):
        raise DataError(str(file), "no transition", expected="at least one positive transition of a training user")
    contexts = np.array([[clusters.index[c] for c in row] for row in table[schema.CONTEXT].to_pylist()], dtype=np.int64)
    labels = np.array([clusters.index[c] for c in table[schema.NEXT].to_pylist()], dtype=np.int64)
    return contexts, labels, table["weight"].to_numpy().astype(np.float32)


def read_choices(transitions: Path, clusters: Clusters, split: str | None = None) -> Choices:
    """Positive transitions as choices among what was new to the person at that moment.

    What a person knew is what their transitions name up to then: the contexts and the clusters that came. Without a
    `split`, those to learn from: of the groups that the mining learned from, of contexts that are not withheld.
    """
    import pyarrow.parquet as pq

    record = transitions / "transitions.json"
    learn_from = "train"
    if record.is_file():
        learn_from = json.loads(record.read_text(encoding="utf-8"))["config"].get("learn_from", "train")
    group = split or (None if learn_from == "all" else "train")
    filters = None if group is None else [(schema.SPLIT, "=", group)]
    frame = pq.read_table(transitions / "transitions.parquet", filters=filters).to_pandas()
    frame = frame.sort_values(schema.USER, kind="stable")  # within a user, the file's order is that of the events
    n, index = len(clusters.interface), clusters.index
    contexts: list[list[int]] = []
    labels: list[int] = []
    known: list[Bools] = []
    liked: list[Bools] = []
    for _, rows in frame.groupby(schema.USER, sort=True):
        seen, likes = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        columns = (rows[name] for name in (schema.CONTEXT, schema.NEXT, schema.POSITIVE, schema.HELD_OUT))
        for context, label, positive, held_out in zip(*columns, strict=True):
            places = [index[c] for c in context]
            seen[places] = True
            target = index[label]
            if positive and not seen[target] and (split is not None or not held_out):
                contexts.append(places)
                labels.append(target)
                known.append(seen.copy())
            seen[target] = True
            # A context that is withheld tells nothing, not even that both are liked.
            if not held_out:
                likes[[*places, target] if positive else places] = True
        liked.append(likes)
    width = len(contexts[0]) if contexts else 1
    return Choices(
        contexts=np.array(contexts, dtype=np.int64).reshape(-1, width),
        labels=np.array(labels, dtype=np.int64),
        known=np.array(known, dtype=bool).reshape(-1, n),
        kinship=kinship_of(clusters.interface_vectors, np.array(liked, dtype=bool).reshape(-1, n)),
    )


def draw_batches(data: TrainingSet, size: int, block: int, seed: int) -> Iterator[Ints]:
    """Endless batches of rows of the training set, [size] each.

    Each pass draws as many contexts as there are, by weight with replacement, and hands them out in blocks that share
    their first interest, so that the model reads it once for a block.
    """
    rng = np.random.default_rng(seed)
    share = data.weights / data.weights.sum()
    share = share.astype(np.float64) / share.sum(dtype=np.float64)
    pending: list[Ints] = []
    while True:
        drawn = np.unique(rng.choice(len(data), size=max(len(data), size), p=share))
        drawn = drawn[rng.permutation(len(drawn))]
        drawn = drawn[np.argsort(data.contexts[drawn, 0], kind="stable")]
        edges = np.flatnonzero(np.diff(data.contexts[drawn, 0])) + 1
        blocks = [b for run in np.split(drawn, edges) for b in np.split(run, range(block, len(run), block))]
        pending.extend(blocks[i] for i in rng.permutation(len(blocks)))
        batch: list[int] = []
        while pending:
            batch.extend(pending.pop().tolist())
            if len(batch) >= size:
                yield np.array(batch[:size])
                batch = batch[size:]
