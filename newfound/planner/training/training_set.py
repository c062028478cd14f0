"""What the planner is taught, and the moments by which its checkpoint is chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig
from newfound.errors import DataError
from newfound.transitions.choice_model import Choices, fit_choices, kinship_of
from newfound.types import Bools, Floats, Ints

STRONGEST = 4.0


@dataclass(frozen=True)
class TrainingSet:
    """Contexts [U, K] as cluster indices, how often each is drawn [U], and what comes next, a distribution [U, N].

    `hint` is how much likelier than that, in nats, a cluster is which followed the very context lately; None: no prompt
    names such a one.
    """

    contexts: Ints
    weights: Floats
    targets: Floats
    hint: float | None = None

    def __len__(self) -> int:
        return len(self.contexts)


def read_lessons(transitions: Path, clusters: Clusters, config: FinetuneConfig, seed: int) -> TrainingSet:
    """The training set: the balanced contexts, each with the distribution that the choices of training users tell.

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
        hint=hint_strength(choices, config, seed) if config.hint_share else None,
    )


def hint_strength(choices: Choices, config: FinetuneConfig, seed: int) -> float:
    """How much likelier than a choice model says is the most frequent successor of the very context, in nats.

    The model is fitted to the first half of the people, and asked about the others. Each of their choices is given the
    successor that is most frequent in all other choices of its context. The strength b maximises their likelihood
    where p(c) becomes p(c) exp(b [c is the hint]), normalised. It is at least 0 and at most `STRONGEST`.
    """
    hints = successors_of_others(choices)
    half = len(choices) // 2
    rows = half + np.flatnonzero(hints[half:] >= 0)
    rows = rows[~choices.known[rows, hints[rows]]]  # what a person knows is no choice
    if not len(rows) or not half:
        return 0.0
    first = Choices(choices.contexts[:half], choices.labels[:half], choices.known[:half], choices.kinship)
    model = fit_choices(first, config.teacher_penalty, config.teacher_epochs, seed)
    scores = np.where(choices.known[rows], -np.inf, model.scores(choices.contexts[rows])).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    said = np.take_along_axis(odds, hints[rows, None], axis=1)[:, 0] / odds.sum(axis=1)
    came = (choices.labels[rows] == hints[rows]).sum()
    low, high = 0.0, STRONGEST
    for _ in range(50):  # the expected number of hints that come true rises with the strength
        middle = (low + high) / 2
        boosted = said * np.exp(middle)
        low, high = (middle, high) if (boosted / (1 - said + boosted)).sum() < came else (low, middle)
    return round(low, 4)


def successors_of_others(choices: Choices) -> Ints:
    """[T], for each choice the most frequent label of the others in the same context; -1 where there is none."""
    _, group = np.unique(choices.contexts, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    found = np.full(len(choices), -1, dtype=np.int64)
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(rows) > 1:
            counts = np.bincount(choices.labels[rows], minlength=choices.known.shape[1])
            others = counts - np.eye(len(counts), dtype=np.int64)[choices.labels[rows]]
            found[rows] = others.argmax(axis=1)
    return found


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


def sample(choices: Choices, at_most: int, seed: int) -> Choices:
    """A seeded sample, in order."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(choices))[:at_most])
    return Choices(choices.contexts[chosen], choices.labels[chosen], choices.known[chosen], choices.kinship)


def draw_batches(lessons: TrainingSet, size: int, block: int, seed: int) -> Iterator[Ints]:
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


def rank_of(scores: Floats, moments: Choices) -> Ints:
    """Each true cluster's rank, 0 is best, among those that the user did not know; ties count against it."""
    open_scores = np.where(moments.known, -np.inf, scores)
    truth = np.take_along_axis(open_scores, moments.labels[:, None], axis=1)
    better: Ints = (open_scores >= truth).sum(axis=1) - 1
    return better


def ranking(scores: Floats, moments: Choices) -> dict[str, float]:
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
