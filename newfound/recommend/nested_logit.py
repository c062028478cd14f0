"""The one decision of planner and ranker: a nested logit over items, with interests as nests.

An item's utility is what the item policy says of it; a nest's is what the language policy and what is known of people
say of the interest. Both meet in one probability (McFadden 1978, "Modelling the choice of residential location"):

    u_i    = sum of a_t x_ti                    terms of the item
    IV_c   = log sum of exp(u_i), i in c        inclusive value: what the nest's items are worth together
    P(c)   ~ exp(lambda IV_c + sum of b_f z_fc) terms of the interest
    P(i)   = P(c) exp(u_i - IV_c)

so that log P(i) = u_i + (lambda - 1) IV_c + sum of b_f z_fc, up to a constant. With lambda = 1 and no further terms it
is the item policy alone; with the cluster's terms alone it is the language policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from newfound.errors import DataError, VocabularyError
from newfound.settings import Settings
from newfound.types import Doubles, Floats, Ints

RECORD: Final = "decision.json"
FORMAT: Final = 1
ITEM_TERMS: Final = ("ranker", "cooccurrence", "popularity", "approval", "trend", "freshness", "text")
CLUSTER_TERMS: Final = ("planner", "choice", "demand")


class Coefficients(Settings):
    """The weights of one nested logit.

    Attributes:
        items: by name of ITEM_TERMS; a term that is missing weighs nothing.
        clusters: by name of CLUSTER_TERMS, likewise.
        dissimilarity: lambda, of the inclusive value; 1 where nests do not matter.
    """

    items: dict[str, float] = {"ranker": 1.0, "cooccurrence": 1.0}
    clusters: dict[str, float] = {}
    dissimilarity: float = 1.0

    def offsets(self, terms: Mapping[str, Floats]) -> Floats:
        """Offset of each nest's items, before the inclusive value, float32 [N].

        Args:
            terms: [N] by name of CLUSTER_TERMS.
        """
        total = np.zeros(len(next(iter(terms.values()))), dtype=np.float64)
        for name, weight in self.clusters.items():
            if name in terms:
                total += weight * terms[name]
        return total.astype(np.float32)


class DecisionModel(Settings):
    """The decision's record, `decision.json`.

    Attributes:
        format: of the file.
        clusters_digest: of the clusters that it was fitted on.
        full: with every term.
        without_planner: fitted anew without the planner's term, for requests that it does not answer.
        intervals: by coefficient of `full`, lower and upper bound.
        fitted: on how many moments of how many users, their log-likelihood a moment, and the confidence.
    """

    format: int = FORMAT
    clusters_digest: str = ""
    full: Coefficients = Coefficients(clusters={"planner": 1.0})
    without_planner: Coefficients = Coefficients()
    intervals: dict[str, tuple[float, float]] = {}
    fitted: dict[str, float | int | str] = {}

    @classmethod
    def load(cls, folder: str | Path, clusters_digest: str) -> DecisionModel:
        """Reads `decision.json` of a folder.

        Raises:
            DataError: it is missing or no such record.
            VocabularyError: it was fitted on other clusters.
        """
        file = Path(folder) / RECORD
        try:
            raw: Any = json.loads(file.read_text(encoding="utf-8"))
            found = cls.model_validate(raw)
        except (OSError, ValueError, ValidationError) as error:
            problem = f"cannot be read ({' '.join(str(error).split())[:200]})"
            raise DataError(str(file), problem, expected="a decision's record") from error
        if found.format != FORMAT:
            raise DataError(str(file), f"format {found.format}", expected=f"format {FORMAT}")
        for own in (found.full, found.without_planner):
            unknown = sorted({*own.items} - {*ITEM_TERMS}) + sorted({*own.clusters} - {*CLUSTER_TERMS})
            if unknown or not np.isfinite([*own.items.values(), *own.clusters.values(), own.dissimilarity]).all():
                what = f"term {unknown[0]!r}" if unknown else "a weight that is not finite"
                raise DataError(
                    str(file), what, expected=f"finite weights of {', '.join((*ITEM_TERMS, *CLUSTER_TERMS))}"
                )
        if found.clusters_digest != clusters_digest:
            raise VocabularyError(
                f"{file}: fitted on clusters {found.clusters_digest[:12]}; expected {clusters_digest[:12]}"
            )
        return found


def inclusive_values(utilities: Floats, bounds: Ints) -> Doubles:
    """log sum of exp(u) over each nest, float64 [N]; minus infinity for a nest without an item to show.

    Args:
        utilities: [n] in nest order, minus infinity for what must not be shown.
        bounds: [N + 1], where each nest's items start and stop.
    """
    starts, sizes = bounds[:-1], np.diff(bounds)
    out = np.full(len(starts), -np.inf)
    full = np.flatnonzero(sizes)
    if not len(full):
        return out
    top = np.maximum.reduceat(utilities, starts[full])
    safe = np.where(np.isfinite(top), top, 0.0).astype(utilities.dtype)
    shifted = utilities - np.repeat(safe, sizes[full])
    np.exp(shifted, out=shifted)  # in single precision, which a third of the time takes; summed in double
    with np.errstate(divide="ignore"):
        out[full] = np.log(np.add.reduceat(shifted, starts[full] - starts[full][0], dtype=np.float64)) + safe
    return out


def joint_utilities(utilities: Floats, bounds: Ints, offsets: Floats, dissimilarity: float) -> Floats:
    """log P(item) up to a constant, float32 [n]: the item's utility, its nest's offset and inclusive value.

    Args:
        utilities: [n] in nest order, minus infinity for what must not be shown.
        bounds: [N + 1].
        offsets: [N], minus infinity for a nest that must not be shown.
        dissimilarity: lambda.
    """
    nests = np.asarray(offsets, dtype=np.float64)
    if dissimilarity != 1.0:
        values = inclusive_values(utilities, bounds)
        nests = nests + (dissimilarity - 1.0) * np.where(np.isfinite(values), values, 0.0)
    joint: Floats = utilities + np.repeat(nests.astype(np.float32), np.diff(bounds))
    return joint


def pooled(log_probs: Floats, weights: Sequence[float] | Doubles, allowed: Any) -> Floats:
    """Log-opinion pool, the weighted mean of log-probabilities among what is allowed, float32 [N] (Genest, Zidek 1986).

    Each row is normalised among the allowed clusters first; a cluster that is not allowed gets 0.

    Args:
        log_probs: [P, N], one row a context.
        weights: [P], not negative, not all zero.
        allowed: bool [N].
    """
    rows = np.where(allowed, log_probs.astype(np.float64), -np.inf)
    top = rows.max(axis=1, keepdims=True)
    rows = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    share = np.asarray(weights, dtype=np.float64)
    mixed = (share / share.sum()) @ np.where(allowed, rows, 0.0)
    result: Floats = np.where(allowed, mixed, 0.0).astype(np.float32)
    return result
