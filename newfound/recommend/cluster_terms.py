"""The decision's terms of interests: the planner's and the choice model's word on what follows, and the demand.

Both models are asked about every context that the user's recent interests make, and their answers are pooled with the
probabilities with which the policy would have sampled those contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from safetensors.numpy import save_file

from newfound.errors import DataError
from newfound.recommend.item_terms import read_tensors
from newfound.recommend.nested_logit import pooled
from newfound.transitions.choice_model import ChoiceModel
from newfound.types import Bools, Context, Floats, Ints

FILE: Final = "clusters.safetensors"


class Answers(Protocol):
    """The language policy's answers to contexts: its table."""

    def log_probs(self, contexts: Sequence[Context]) -> Floats:
        """[P, N] log-probabilities of all clusters; rows of minus infinity for contexts that are not held."""


@dataclass(frozen=True)
class ClusterTerms:
    """Terms of interests.

    Attributes:
        choice: what people choose after a context, learned from transitions.
        demand: float32 [N], log of one plus the transitions that led to each cluster, centred.
    """

    choice: ChoiceModel
    demand: Floats

    def of(self, contexts: Ints, weights: Sequence[float], allowed: Bools) -> dict[str, Floats]:
        """Choice and demand for somebody, by term [N].

        Args:
            contexts: [P, K] cluster indices; none for somebody without interests.
            weights: [P], their probabilities.
            allowed: [N], clusters that are new to the person and can be shown.
        """
        zeros = np.zeros(len(allowed), dtype=np.float32)
        if not allowed.any():
            return {"choice": zeros, "demand": zeros}
        if not len(contexts):
            return {"choice": zeros, "demand": np.where(allowed, self.demand, np.float32(0))}
        scores = self.choice.scores(contexts)
        return {
            "choice": pooled(scores, weights, allowed),
            "demand": np.where(allowed, self.demand, np.float32(0)),
        }

    @classmethod
    def nothing(cls, clusters: int, context: int) -> ClusterTerms:
        """Terms that are 0 throughout."""
        zeros = np.zeros(clusters, dtype=np.float32)
        return cls(ChoiceModel(zeros, np.zeros((context, clusters, clusters), dtype=np.float32)), zeros)

    def save(self, folder: Path) -> None:
        """Writes the file."""
        tensors = {"bias": self.choice.bias, "pull": self.choice.pull, "demand": self.demand}
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path, clusters: int) -> ClusterTerms:
        """Reads the file.

        Raises:
            DataError: it is missing, broken, or of another number of clusters.
        """
        file = folder / FILE
        tensors = read_tensors(file, ("bias", "pull", "demand"), "the decision's terms of clusters")
        found = cls(ChoiceModel(tensors["bias"], tensors["pull"]), tensors["demand"])
        if not len(found.demand) == len(found.choice.bias) == found.choice.pull.shape[-1] == clusters:
            raise DataError(str(file), f"{len(found.demand)} clusters", expected=f"{clusters}, those in use")
        return found


def has_answer(answers: Floats) -> Bools:
    """[P], whether a context has an answer: its row is not minus infinity throughout."""
    return np.asarray(np.isfinite(answers).any(axis=1))


def planner_term(answers: Floats, weights: Sequence[float], allowed: Bools) -> Floats | None:
    """The planner's pooled log-probabilities among the allowed clusters, [N]; None where it says nothing.

    Args:
        answers: [P, N], one row a context, minus infinity throughout where there is no answer.
        weights: [P].
        allowed: bool [N].
    """
    held = has_answer(answers) & (np.asarray(weights) > 0)
    if not held.any() or not allowed.any():
        return None
    rows = np.maximum(answers[held], np.float32(FLOOR))
    return pooled(rows, np.asarray(weights)[held], allowed)


FLOOR: Final = -20.0  # of a log-probability, so that a cluster that the planner rules out stays an offer
