"""Measures of items: the ranker alone and inside the true cluster, whole slates of every method, the novelty quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from newfound import measures, schema
from newfound.clusters import Clusters
from newfound.config import EvaluationConfig
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.end_to_end import (
    Catalogue,
    Markov,
    Popularity,
    best_clusters,
    end_to_end_ranks,
    item_ranks,
    item_ranks_in_cluster,
    quota_curve,
)
from newfound.evaluation.methods import Answers, Method, put
from newfound.evaluation.moments import Events, next_item_events, read_journeys
from newfound.evaluation.scorers import TableScorer
from newfound.types import Ints

SLATE: Final = 10
WIDTHS: Final = (1, 2, 3, 5, 10)
"""Numbers of clusters that may share a slate of ten; each method's number is chosen on validation users."""


def ranker_measures(
    dataset: Path, clusters: Clusters, ranker: Any, catalogue: Catalogue, limits: EvaluationConfig, seed: int
) -> dict[str, float]:
    """The ranker's own figures, leave one out, beside most popular and Markov."""
    metrics: dict[str, float] = {}
    everyone = read_journeys(dataset, clusters, schema.GROUPS, limits.users_at_most, seed)
    events = next_item_events(everyone)
    boot = Bootstrap(events.users, resamples=limits.bootstrap, confidence=limits.confidence, seed=seed)
    popular = Popularity(dataset, catalogue.items)
    scorers = {"ranker": ranker, "baseline.popular": popular, "baseline.markov": Markov(dataset, popular)}
    for name, scorer in scorers.items():
        ranks = item_ranks(scorer, catalogue, events)
        put(metrics, f"{name}.hr@10", boot.mean(measures.hits(ranks, 10)))
        put(metrics, f"{name}.ndcg@10", boot.mean(measures.gains(ranks, 10)))
    metrics["ranker.users"] = len(events)
    return metrics


def end_to_end_measures(
    ranker: Any,
    catalogue: Catalogue,
    events: Events,
    validation: Events,
    methods: Sequence[Method],
    answers: Mapping[str, Answers],
    boot: Bootstrap,
) -> dict[str, float]:
    """The ranker inside the true cluster, and slates end to end with each method's clusters."""
    metrics: dict[str, float] = {}
    ranks, offered = item_ranks_in_cluster(ranker, catalogue, events)
    for k in (1, 10):
        put(metrics, f"ranker.given_cluster.hr@{k}", boot.mean(measures.hits(ranks, k)))
        put(metrics, f"ranker.given_cluster.ndcg@{k}", boot.mean(measures.gains(ranks, k)))
        blind = np.where(offered > 0, np.minimum(1.0, k / np.maximum(offered, 1)), 0.0)
        put(metrics, f"chance.given_cluster.hr@{k}", boot.mean(blind))
    metrics |= grounding(ranker, catalogue, events, answers[methods[0].key].best[:, 0])
    widths = slate_widths(ranker, catalogue, validation, methods)
    chosen = {method.key: answers[method.key].best[:, : widths[method.key]] for method in methods}
    for key, places in end_to_end_ranks(ranker, catalogue, events, chosen, SLATE).items():
        name = key if key in chosen else f"rival.{key}"
        put(metrics, f"{name}.novel_hr@10", boot.mean(measures.hits(places, SLATE)))
        put(metrics, f"{name}.novel_ndcg@10", boot.mean(measures.gains(places, SLATE)))
        if key in widths:
            metrics[f"{name}.slate_clusters"] = widths[key]
    return metrics


def slate_widths(ranker: Any, catalogue: Catalogue, validation: Events, methods: Sequence[Method]) -> dict[str, int]:
    """Number of clusters that share a slate, by method: what finds most on validation users, the fewest of equals."""
    if not len(validation):
        return {method.key: 5 for method in methods}
    best = {m.key: best_clusters(m.scorer.scores(validation), validation.seen, max(WIDTHS)) for m in methods}
    options = {f"{key}@{width}": found[:, :width] for key, found in best.items() for width in WIDTHS}
    ranks = end_to_end_ranks(ranker, catalogue, validation, options, SLATE)
    return {
        method.key: max(WIDTHS, key=lambda w: (measures.hits(ranks[f"{method.key}@{w}"], SLATE).mean(), -w))
        for method in methods
    }


def grounding(ranker: Any, catalogue: Catalogue, events: Events, clusters: Ints, sample: int = 200) -> dict[str, float]:
    """Whether what the ranker's index returns for a cluster belongs to it, consumed items excluded."""
    order = events.journeys.order
    rows = [row for row in np.linspace(0, len(events) - 1, min(sample, len(events))).astype(int) if clusters[row] >= 0]
    histories = [events.histories[row] for row in rows]
    asked = [[order[clusters[row]]] for row in rows]
    found = ranker.top_k(histories, asked, SLATE, histories)
    members = [
        {catalogue.items[c] for c in catalogue.members[clusters[row]]}.difference(events.histories[row]) for row in rows
    ]
    returned = [[item for item, _ in answer] for answer in found]
    return {
        "ranker.grounding_precision": measures.grounding_precision(returned, members),
        "ranker.grounding_recall": measures.grounding_recall(returned, members, SLATE),
    }


def quota_measures(ranker: Any, catalogue: Catalogue, events: Events, served: TableScorer) -> dict[str, Any]:
    """Hit rate of the next liked item over the novelty quota, all items and by whether they opened a new cluster."""
    if not len(events):
        return {}
    clusters = best_clusters(served.scores(events), events.seen, SLATE)
    found, novel = quota_curve(ranker, catalogue, events, clusters, SLATE)

    def rates(mask: Any) -> list[float]:
        return [float(row[mask].mean()) if mask.any() else 0.0 for row in found]

    return {
        "hr": rates(np.ones(len(events), dtype=bool)),
        "novel": rates(novel),
        "familiar": rates(~novel),
        "events": len(events),
        "novel_share": float(novel.mean()),
    }
