"""Log-odds boost of a hinted cluster, in nats, fitted to what hints have been worth.

A hint is the most frequent recent successor of the very context, which a refresh names in the prompt.
"""

from __future__ import annotations

import numpy as np

from newfound.config import FinetuneConfig
from newfound.transitions.choice_model import Choices, fit_choices
from newfound.types import Ints

LARGEST_BOOST = 4.0


def fit_hint_boost(choices: Choices, config: FinetuneConfig, seed: int) -> float:
    """Maximum-likelihood boost b, where the choice model's p(c) becomes p(c) exp(b [c is the hint]), normalised.

    The choice model is fitted to the first half of the people, the boost to the others. Each of their choices is given
    the successor that is most frequent in all other choices of its context. The boost is at least 0 and at most
    `LARGEST_BOOST`.
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
    expected = np.take_along_axis(odds, hints[rows, None], axis=1)[:, 0] / odds.sum(axis=1)
    came_true = (choices.labels[rows] == hints[rows]).sum()
    low, high = 0.0, LARGEST_BOOST
    for _ in range(50):  # the expected number of hints that come true rises with the boost
        middle = (low + high) / 2
        boosted = expected * np.exp(middle)
        low, high = (middle, high) if (boosted / (1 - expected + boosted)).sum() < came_true else (low, middle)
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
