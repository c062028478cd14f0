"""Training set of the planner: contexts, the distribution over what comes next, and which contexts are read first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import perm

import numpy as np

from newfound.config import FinetuneConfig
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import ChoiceModel, Choices, fit_choices
from newfound.types import Floats, Ints

OBSERVED = 3.0  # times as much as a context that nobody was in does one count, for every choice that was made there
EVERY_CONTEXT = 500_000  # up to so many ordered contexts those that nobody was in are read as well


@dataclass(frozen=True)
class TrainingSet:
    """Targets of the training: a teacher's distributions, and the choices that people made.

    Args:
        teacher: a choice model of training users.
        choices: theirs.
        withheld: [W, K] contexts that may not be learned from.
    """

    teacher: ChoiceModel
    choices: Choices
    withheld: Ints

    def counts(self, contexts: Ints) -> Floats:
        """[M, N] how often each cluster was chosen in some contexts."""
        row = {tuple(context): at for at, context in enumerate(contexts.tolist())}
        found = np.zeros((len(contexts), self.choices.known.shape[1]), dtype=np.float32)
        for context, label in zip(self.choices.contexts.tolist(), self.choices.labels.tolist(), strict=True):
            at = row.get(tuple(context))
            if at is not None:
                found[at, label] += 1
        return found

    def may_learn(self, contexts: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """[M], whether a context was not withheld."""
        withheld = {tuple(context) for context in self.withheld.tolist()}
        return np.array([tuple(context) not in withheld for context in contexts.tolist()], dtype=bool)


def read_training_set(transitions: Transitions, config: FinetuneConfig, seed: int) -> TrainingSet:
    """The teacher, fitted to training users' choices, and what it was fitted to.

    Raises:
        DataError: the training set is empty.
    """
    transitions.balanced()  # names the file where there is nothing to learn from
    choices = transitions.choices()
    index = transitions.clusters.index
    withheld = sorted(tuple(index[c] for c in context) for context in transitions.withheld())
    return TrainingSet(
        teacher=fit_choices(choices, config.teacher_penalty, config.teacher_epochs, seed),
        choices=choices,
        withheld=np.array(withheld, dtype=np.int64).reshape(-1, transitions.size),
    )


def reading_order(transitions: Transitions, at_most: int) -> Ints:
    """[P, K] contexts in the order in which they are read: those that people were in, most frequent first, then others.

    Those that nobody was in yet follow by the traffic of their interests; where there are very many, they are left out.
    """
    clusters, size = transitions.clusters, transitions.size
    counts = transitions.context_counts()
    seen = sorted(counts, key=lambda context: (-counts[context], context))
    found = [tuple(clusters.index[c] for c in context) for context in seen][:at_most]
    n = len(clusters.interface)
    if len(found) < at_most and perm(n, size) <= EVERY_CONTEXT:
        taken = set(found)
        others = [context for context in permutations(range(n), size) if context not in taken]
        traffic = np.asarray(clusters.traffic, dtype=np.float64)
        weight = traffic[np.array(others, dtype=np.int64).reshape(-1, size)].prod(axis=1)
        found += [others[at] for at in np.argsort(-weight, kind="stable")[: at_most - len(found)]]
    return np.array(found, dtype=np.int64).reshape(-1, size)
