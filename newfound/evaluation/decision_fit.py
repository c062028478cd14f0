"""Fits the one decision on what people chose after the cut, and makes the terms that it weighs.

The moments are those of training and validation users: neither planner nor ranker has seen anything of what lies after
the cut, and no test user is among them. The refit on all data keeps the coefficients and makes the terms anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from newfound.clusters import Clusters
from newfound.config import PolicyConfig, TrainingConfig
from newfound.evaluation import moments as protocols
from newfound.evaluation.moments import Events
from newfound.features.histories import Histories
from newfound.files import new_folder, write_json
from newfound.ranker import Ranker
from newfound.recommend.cluster_terms import ClusterTerms, planner_term
from newfound.recommend.fit import Estimate, Moments, fit_nested_logit
from newfound.recommend.item_terms import COUNTS, TIMED, ItemTerms, make_item_terms
from newfound.recommend.nested_logit import RECORD, Coefficients, DecisionModel
from newfound.recommend.policy import context_distribution, interests
from newfound.table import TransitionTable
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import fit_choices
from newfound.types import Bools, Floats, Ints

log = logging.getLogger("newfound.evaluation.decision")

CHUNK: Final = 128
CELLS: Final = 1 << 27
"""Item scores that are held for the fit: what bounds its memory."""
ENOUGH: Final = 100
"""Moments below which nothing is fitted: the defaults decide."""
LEARNERS: Final = ("train", "validation")


def fit_decision(
    dataset: Path,
    histories: Path,
    clusters: Path,
    transitions: Path,
    table: Path,
    ranker: Path,
    config: TrainingConfig,
    out: Path,
    measured: Path | None = None,
) -> dict[str, float]:
    """Writes the folder of `decision.json`, `items.safetensors` and `clusters.safetensors`.

    Args:
        dataset: the data set, whose events after the cut are the choices.
        histories: histories.parquet.
        clusters: the clusters' folder.
        transitions: the transitions' folder.
        table: the table's folder.
        ranker: the ranker's folder.
        config: the whole configuration.
        out: the folder to write; decision.json comes last.
        measured: an earlier folder whose coefficients stay; None fits them.

    Returns:
        Measures: the coefficients, the moments behind them, their log-likelihood.
    """
    interest, past = Clusters.load(clusters), Histories.load(histories)
    mined, tuning = Transitions.load(transitions, interest), config.planner.finetune
    began = time.perf_counter()
    choice = fit_choices(mined.choices(), tuning.teacher_penalty, tuning.teacher_epochs, config.seed)
    demand = np.log1p(mined.counts().frequency.astype(np.float64))
    cluster_terms = ClusterTerms(choice, (demand - demand.mean()).astype(np.float32))
    item_terms = make_item_terms(past, interest)
    if measured is not None:
        model = DecisionModel.load(measured, interest.digest)
    else:
        source = Source(
            Ranker.load(ranker),
            TransitionTable.load(table, interest),
            item_terms,
            cluster_terms,
            interest,
            config.policy,
            timed=config.split.cut == "global",
        )
        people = protocols.read_journeys(dataset, interest, LEARNERS, config.evaluation.users_at_most, config.seed)
        events = protocols.novel_events(people, config.transitions.context)
        model = fit_model(source, events, config.evaluation.confidence, config.seed)
    log.info("decision: %.1f s", time.perf_counter() - began)
    with new_folder(out, RECORD) as folder:
        item_terms.save(folder)
        cluster_terms.save(folder)
        write_json(folder / RECORD, model.model_dump(mode="json"))
    weights = {**model.full.items, **model.full.clusters, "dissimilarity": model.full.dissimilarity}
    numbers = {name: value for name, value in model.fitted.items() if not isinstance(value, str)}
    return {**numbers, **{f"weight.{name}": value for name, value in weights.items()}}


@dataclass(frozen=True)
class Source:
    """Sources of the terms."""

    ranker: Ranker
    table: TransitionTable
    items: ItemTerms
    clusters: ClusterTerms
    interest: Clusters
    policy: PolicyConfig
    timed: bool = False
    """whether all pasts end at the same time, so that what is recent means the same to everybody"""

    @property
    def bounds(self) -> Ints:
        """[N + 1], where each interest's items start and stop."""
        return np.array([0, *(self.interest.slice_of(name)[1] for name in self.interest.interface)], dtype=np.int64)

    @property
    def item_names(self) -> list[str]:
        """Item terms that say anything on these data."""
        counts = [name for name in COUNTS if self.timed or name not in TIMED]
        names = ["ranker", *(["cooccurrence"] if self.ranker.cooccurrence.weight else []), *counts]
        return [*names, *(["text"] if self.items.text.shape[1] else [])]

    def moments(self, events: Events) -> Iterator[Moments]:
        """The terms of some moments, `CHUNK` at a time."""
        for start in range(0, len(events), CHUNK):
            yield self._moments(events.take(np.arange(start, min(start + CHUNK, len(events)))))

    def _moments(self, events: Events) -> Moments:
        length = self.ranker.encoder.length
        known = [self.ranker.positions(history[-length:]) for history in events.histories]
        ranked: Floats = self.ranker.queries(known) @ self.ranker.index.vectors.T
        rows, cooccurrence = len(events), np.zeros_like(ranked)
        for row, history in enumerate(known):
            near, values = self.ranker.cooccurrence.bonus(history)
            cooccurrence[row, near] = values
        allowed = np.repeat(~events.seen, np.diff(self.bounds), axis=1)
        for row, consumed in enumerate(events.histories):
            allowed[row, self.ranker.positions(consumed)] = False
        items: dict[str, Floats] = {"ranker": ranked, "cooccurrence": cooccurrence}
        for at, name in enumerate(COUNTS):
            items[name] = np.broadcast_to(self.items.counts[:, at], ranked.shape)
        if "text" in self.item_names:
            items["text"] = np.stack([self.items.profile(history) for history in known]) @ self.items.text.T
        targets = self.ranker.positions(events.items)
        assert len(targets) == rows  # a novel moment's item is in a cluster, and so known to the ranker
        clusters = self._cluster_terms(events)
        return Moments({n: items[n] for n in self.item_names}, clusters, allowed, targets, events.users)

    def _cluster_terms(self, events: Events) -> dict[str, Floats]:
        index, n = self.interest.index, len(self.interest.interface)
        found = {name: np.zeros((len(events), n), dtype=np.float32) for name in ("planner", "choice", "demand")}
        for row, event in enumerate(events.at.tolist()):
            allowed: Bools = ~events.seen[row]
            liked = interests(events.journeys.past_before(event), self.policy)
            pairs = [one for one in context_distribution(liked, len(self.clusters.choice.pull)) if one[0]]
            weights = [probability for _, probability in pairs]
            places = np.array([[index[cluster] for cluster in context] for context, _ in pairs], dtype=np.int64)
            for name, values in self.clusters.of(places, weights, allowed).items():
                found[name][row] = values
            said = planner_term(self.table.log_probs([context for context, _ in pairs]), weights, allowed)
            if said is not None:
                found["planner"][row] = said
        return found


def fit_model(source: Source, events: Events, confidence: float, seed: int) -> DecisionModel:
    """The coefficients with the planner's term and, fitted anew, without it."""
    digest = source.interest.digest
    if len(events) < ENOUGH:
        log.warning("decision: %d moments are too few to fit it; the defaults decide", len(events))
        return DecisionModel(clusters_digest=digest, fitted={"moments": len(events)})
    held = kept(events, len(source.ranker.items), seed)
    stored = list(source.moments(held))
    fit = partial(fit_nested_logit, lambda: stored, source.bounds, source.item_names, confidence=confidence)
    # A language model has learned what its teacher knows: beside it the teacher says nothing more, and two terms
    # that say the same have weights that mean nothing. It speaks where the planner does not.
    distilled = ("planner", "demand") if source.table.source == "planner" else ("planner", "choice", "demand")
    full, without = fit(clusters=distilled), fit(clusters=("choice", "demand"))
    for name, (low, high) in full.intervals.items():
        log.info("decision: %-14s %+.3f [%.3f, %.3f]", name, _weight(full.coefficients, name), low, high)
    return DecisionModel(
        clusters_digest=digest,
        full=full.coefficients,
        without_planner=without.coefficients,
        intervals=full.intervals,
        fitted=_figures(full, without, confidence),
    )


def kept(events: Events, items: int, seed: int) -> Events:
    """As many moments as the bound on memory allows, a seeded choice of all."""
    most = max(CELLS // (3 * items), ENOUGH)  # the ranker's, the co-occurrence's and the texts' scores of every item
    if len(events) <= most:
        return events
    return events.take(np.sort(np.random.default_rng(seed).choice(len(events), most, replace=False)))


def _weight(coefficients: Coefficients, name: str) -> float:
    found = {**coefficients.items, **coefficients.clusters, "dissimilarity": coefficients.dissimilarity}
    return found[name]


def _figures(full: Estimate, without: Estimate, confidence: float) -> dict[str, float | int | str]:
    return {
        "moments": full.moments,
        "users": full.users,
        "log_likelihood": full.log_likelihood,
        "log_likelihood_without_planner": without.log_likelihood,
        "confidence": confidence,
    }
