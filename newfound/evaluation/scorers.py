"""The planner and its transition table as scorers of clusters, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from newfound.evaluation.baselines import Scorer
from newfound.evaluation.moments import Events
from newfound.types import Context, Ints, Reals


class Policy(Protocol):
    """The planner's part that scoring needs: `newfound.planner.planner.Planner.log_probs`."""

    def log_probs(self, contexts: Sequence[Context]) -> Reals:
        """Natural-log probabilities of all clusters, [B, N]."""


class PlannerScorer:
    """The planner, asked for each moment's context: exact log-probabilities of every cluster."""

    def __init__(self, planner: Policy) -> None:
        self._planner = planner

    def scores(self, events: Events) -> Reals:
        if not len(events):
            return np.zeros((0, len(events.journeys.order)))
        unique = list(dict.fromkeys(events.contexts))
        row = {context: at for at, context in enumerate(unique)}
        return self._planner.log_probs(unique)[[row[context] for context in events.contexts]]


Live = Callable[[Sequence[Context]], Sequence[Sequence[tuple[str, float]]]]
"""Each context's clusters and their scores, best first."""


class TableScorer:
    """The transition table's answers, minus infinity where it has none.

    Args:
        table: of `newfound.table`.
        order: interface clusters, by index.
        backup: what scores the clusters that the table leaves open, always after its own answers.
        live: answers the contexts that the table does not hold, as serving asks the planner for them; None: nothing
            does.
    """

    def __init__(
        self, table: Any, order: Sequence[str], backup: Scorer | None = None, live: Live | None = None
    ) -> None:
        self._table, self._order, self._backup, self._live = table, order, backup, live
        self._index = {cluster: at for at, cluster in enumerate(order)}
        self._rows: dict[Context, tuple[list[int], list[float]]] = {}

    def answers(self, context: Context) -> tuple[list[int], list[float]]:
        """Clusters by index and their scores, best first; nothing where nobody answers the context."""
        self._look_up([context])
        return self._rows[context]

    def _look_up(self, contexts: Sequence[Context]) -> None:
        missing = []
        for context in dict.fromkeys(contexts):
            if context in self._rows:
                continue
            found = self._table.successors(context)
            if found is None and self._live is not None:
                missing.append(context)
            else:
                self._keep(context, [(answer.cluster, answer.score) for answer in found or []])
        if missing and self._live is not None:
            for context, answers in zip(missing, self._live(missing), strict=True):
                self._keep(context, answers)

    def _keep(self, context: Context, answers: Sequence[tuple[str, float]]) -> None:
        self._rows[context] = [self._index[cluster] for cluster, _ in answers], [float(score) for _, score in answers]

    def raw(self, contexts: Sequence[Context], k: int) -> Ints:
        """The first k answers before anybody's history is taken out, [B, k], padded with -1."""
        self._look_up(contexts)
        out = np.full((len(contexts), k), -1, dtype=np.int64)
        for row, context in enumerate(contexts):
            answers = self.answers(context)[0][:k]
            out[row, : len(answers)] = answers
        return out

    def scores(self, events: Events) -> Reals:
        scores = np.full((len(events), len(self._order)), -np.inf)
        if self._backup is not None:
            below = self._backup.scores(events)
            scores = below - np.where(np.isfinite(below), below, -np.inf).max(axis=1, keepdims=True) - 1e6
        self._look_up(events.contexts)
        for row, context in enumerate(events.contexts):
            clusters, values = self._rows[context]
            scores[row, clusters] = values
        return scores
