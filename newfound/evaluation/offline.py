"""The proof: the planner, its table and the ranker on what came after the cut, beside chance and the rivals."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from newfound import measures, schema
from newfound.clusters import Clusters
from newfound.config import EvaluationConfig, TrainingConfig
from newfound.datasets import Dataset
from newfound.evaluation import moments as protocols
from newfound.evaluation.baselines import Baseline, ranker_rival, simple_rivals, teacher_rival
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.cluster_sequence import sequence_rival
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
from newfound.evaluation.methods import Answers, Method, judge, method_of, paired, put, slices_of
from newfound.evaluation.moments import Context, Events
from newfound.evaluation.report import findings
from newfound.evaluation.report.page import write_report
from newfound.evaluation.scorers import Live, PlannerScorer, TableScorer
from newfound.evaluation.served import open_recommender, served_measures
from newfound.files import new_folder
from newfound.measures import Ints
from newfound.planner.prompt import has_planner
from newfound.transitions.artifact import Transitions

log = logging.getLogger("newfound.evaluation")

SLATE = 10
WIDTHS = (1, 2, 3, 5, 10)
"""How many clusters may share a slate of ten; each method's number is chosen on validation users."""

T = TypeVar("T")


def _timed(what: str, make: Callable[[], T]) -> T:
    started = time.perf_counter()
    made = make()
    log.info("%s: %.1f s", what, time.perf_counter() - started)
    return made


@dataclass(frozen=True)
class Moments:
    """The test moments and those of validation users."""

    test: Events
    validation: Events
    short_validation: Events
    """as many as the planner is asked about"""


def gather_moments(dataset: Path, clusters: Clusters, config: TrainingConfig) -> Moments:
    """Reads the journeys of test and validation users and finds the moments at which they liked something new."""
    size, limits = config.transitions.context, config.evaluation
    journeys = protocols.read_journeys(dataset, clusters, ["test"], limits.users_at_most, config.seed)
    test = protocols.at_most(protocols.novel_events(journeys, size), limits.contexts_at_most, config.seed)
    others = protocols.read_journeys(dataset, clusters, ["validation"], limits.users_at_most, config.seed)
    tuning = protocols.novel_events(others, size)
    short = protocols.at_most(tuning, limits.validation_contexts, config.seed)
    return Moments(test, tuning, short)


def evaluate(
    dataset: Path,
    histories: Path,
    clusters: Path,
    transitions: Path,
    planner: Path,
    table: Path,
    ranker: Path,
    decision: Path,
    tuned: Path | None,
    config: TrainingConfig,
    out: Path,
) -> dict[str, float]:
    """Measures one fit and writes metrics.json, rivals.json, findings.json and report.html.

    Args:
        dataset: the data set's folder, whose events after the cut are the labels.
        histories: histories.parquet, the past.
        clusters: the clusters' folder.
        transitions: the transitions' folder.
        planner: the planner's folder; one without a language model (ids alone) is left out.
        table: the table's folder.
        ranker: the ranker's folder.
        decision: the decision's folder.
        tuned: the tuning's folder, for the report.
        config: the whole configuration.
        out: the folder to write; metrics.json comes last.

    Returns:
        The measures, by the flat keys of metrics.json.

    Raises:
        DataError: an input is missing, or no test user liked anything new after the cut.
    """
    from newfound.errors import DataError
    from newfound.ranker import Ranker
    from newfound.table import TransitionTable

    interests = Clusters.load(clusters)
    moments = _timed("moments", lambda: gather_moments(dataset, interests, config))
    if not len(moments.test):
        raise DataError(
            str(dataset), "no test user likes anything of a new cluster after the cut",
            expected="more test users, a larger future, or more clusters",
        )  # fmt: skip
    mined = Transitions.load(transitions, interests)
    counts = mined.counts()
    answers_of_table = TransitionTable.load(table, interests)
    item_policy = Ranker.load(ranker)
    catalogue = Catalogue(item_policy.items, interests)
    limits = config.evaluation
    boot = Bootstrap(moments.test.users, resamples=limits.bootstrap, confidence=limits.confidence, seed=config.seed)
    rivals = _timed("simple rivals", lambda: simple_rivals(counts, interests, moments.validation, config.seed))
    choices, epochs = mined.choices(), config.planner.finetune.teacher_epochs
    rivals.append(_timed("choice model", lambda: teacher_rival(choices, moments.validation, config.seed, epochs)))
    if limits.sequence_epochs:
        arguments = (histories, clusters, mined, moments.validation, limits.sequence_epochs)
        rivals.append(_timed("sequence model over clusters", lambda: sequence_rival(*arguments, config.seed)))
    rivals.append(_timed("ranker by cluster", lambda: ranker_rival(item_policy, catalogue, moments.validation)))
    backup = next(r.scorer for r in rivals if r.name == "pair_frequency")
    metrics: dict[str, float] = {"planner.present": 0.0}
    ours: list[Method] = []
    live: Live | None = None
    if has_planner(planner):
        policy, scorer = _timed("planner loaded", lambda: _load_planner(planner, interests, config))
        metrics |= {"planner.present": 1.0, "planner.match_rate": _match_rate(policy, moments.test, config)}
        ours.append(Method("planner", "Planner, fine-tuned", scorer, "ours"))
        live = partial(_answer_live, policy)
    served = TableScorer(answers_of_table, interests.interface, backup, live)
    sees = "the planner; pair frequency below it"
    ours.append(Method("table", "Transition table, as served", served, "ours", sees=sees))
    methods = ours + [method_of(rival) for rival in rivals]
    withheld = mined.withheld()
    slices = slices_of(moments.test, withheld, config.policy, config.transitions.context, config.seed)
    raw = {method.key: served.raw(moments.test.contexts, SLATE) for method in ours}
    judged, answers, deciles = _timed(
        "methods judged",
        lambda: judge(methods, moments.test, slices, counts.frequency, boot, raw),
    )
    metrics |= judged
    paired(metrics, methods[0].key, answers, slices, boot)
    metrics |= _timed("items", lambda: _item_measures(dataset, interests, item_policy, catalogue, limits, config.seed))
    metrics |= _timed("end to end", lambda: _composed(item_policy, catalogue, moments, methods, answers, boot))
    serving = open_recommender(dataset, clusters, table, ranker, decision, config.policy)
    metrics |= _timed("slates as served", lambda: served_measures(serving, item_policy, moments.test, boot))
    metrics |= {name: metrics[f"served.{name}"] for name in ("novel_hr@10", "novel_ndcg@10")}
    users = max(1, limits.users_at_most // limits.liked_items)
    walks = protocols.read_journeys(dataset, interests, ["test"], users, config.seed)
    liked = protocols.next_positive_events(walks, config.transitions.context, limits.liked_items)
    curve = _timed("quota curve", lambda: _quota(item_policy, catalogue, liked, served))
    metrics |= {f"quota.{q}.hr@10": value for q, value in enumerate(curve.get("hr", []))}
    metrics |= {"events": len(moments.test), "users": len(np.unique(moments.test.users))}
    metrics = {key: float(value) for key, value in metrics.items() if np.isfinite(value)}
    evidence = findings.Evidence(
        dataset=Dataset(dataset),
        clusters=interests,
        config=config,
        metrics=metrics,
        methods=methods,
        slices=slices,
        events=moments.test,
        withheld=withheld,
        deciles=deciles,
        quota=curve,
        served=served,
        recommender=serving,
        folders={"planner": planner, "ranker": ranker, "tuned": tuned},
    )
    page = findings.gather(evidence)
    _write(out, metrics, rivals, page)
    return metrics


def _load_planner(folder: Path, clusters: Clusters, config: TrainingConfig) -> tuple[Any, PlannerScorer]:
    from newfound.planner.planner import Planner

    planner = Planner.load(folder, clusters, precision=config.planner.precision)
    return planner, PlannerScorer(planner)


def _answer_live(planner: Any, contexts: Sequence[Context]) -> list[list[tuple[str, float]]]:
    """What the planner's table would hold for some contexts that it does not, best first."""
    best, values = planner.top_k(contexts, len(planner))
    return [
        [(planner.nodes[at], value) for at, value in zip(row, scores, strict=True) if at >= 0]
        for row, scores in zip(best.tolist(), values.tolist(), strict=True)
    ]


def _match_rate(planner: Any, events: Events, config: TrainingConfig) -> float:
    """Free decoding over an even choice of the test moments' contexts."""
    unique = sorted(set(events.contexts))
    wanted = np.linspace(0, len(unique) - 1, min(config.planner.match_rate_contexts, len(unique))).astype(int)
    return float(planner.match_rate([unique[at] for at in wanted]))


def _item_measures(
    dataset: Path, clusters: Clusters, ranker: Any, catalogue: Catalogue, limits: EvaluationConfig, seed: int
) -> dict[str, float]:
    """The ranker's own figures, leave one out, beside most popular and Markov."""
    metrics: dict[str, float] = {}
    everyone = protocols.read_journeys(dataset, clusters, schema.GROUPS, limits.users_at_most, seed)
    events = protocols.next_item_events(everyone)
    boot = Bootstrap(events.users, resamples=limits.bootstrap, confidence=limits.confidence, seed=seed)
    popular = Popularity(dataset, catalogue.items)
    scorers = {"ranker": ranker, "baseline.popular": popular, "baseline.markov": Markov(dataset, popular)}
    for name, scorer in scorers.items():
        ranks = item_ranks(scorer, catalogue, events)
        put(metrics, f"{name}.hr@10", boot.mean(measures.hits(ranks, 10)))
        put(metrics, f"{name}.ndcg@10", boot.mean(measures.gains(ranks, 10)))
    metrics["ranker.users"] = len(events)
    return metrics


def _composed(
    ranker: Any,
    catalogue: Catalogue,
    moments: Moments,
    methods: Sequence[Method],
    answers: Mapping[str, Answers],
    boot: Bootstrap,
) -> dict[str, float]:
    """The ranker inside the true cluster, and slates end to end with each method's clusters."""
    metrics: dict[str, float] = {}
    events = moments.test
    ranks, offered = item_ranks_in_cluster(ranker, catalogue, events)
    for k in (1, 10):
        put(metrics, f"ranker.given_cluster.hr@{k}", boot.mean(measures.hits(ranks, k)))
        put(metrics, f"ranker.given_cluster.ndcg@{k}", boot.mean(measures.gains(ranks, k)))
        blind = np.where(offered > 0, np.minimum(1.0, k / np.maximum(offered, 1)), 0.0)
        put(metrics, f"chance.given_cluster.hr@{k}", boot.mean(blind))
    metrics |= grounding(ranker, catalogue, events, answers[methods[0].key].best[:, 0])
    widths = slate_widths(ranker, catalogue, moments.short_validation, methods)
    chosen = {method.key: answers[method.key].best[:, : widths[method.key]] for method in methods}
    for key, places in end_to_end_ranks(ranker, catalogue, events, chosen, SLATE).items():
        name = key if key in chosen else f"rival.{key}"
        put(metrics, f"{name}.novel_hr@10", boot.mean(measures.hits(places, SLATE)))
        put(metrics, f"{name}.novel_ndcg@10", boot.mean(measures.gains(places, SLATE)))
        if key in widths:
            metrics[f"{name}.slate_clusters"] = widths[key]
    return metrics


def slate_widths(ranker: Any, catalogue: Catalogue, validation: Events, methods: Sequence[Method]) -> dict[str, int]:
    """How many clusters share a slate, for each method: what finds most on validation users, the fewest of equals."""
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


def _quota(ranker: Any, catalogue: Catalogue, events: Events, served: TableScorer) -> dict[str, Any]:
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


def _write(out: Path, metrics: Mapping[str, float], rivals: Sequence[Baseline], page: Mapping[str, Any]) -> None:
    """The folder, known by its metrics.json."""
    tuned = {r.name: {"chosen": r.chosen, "tried": r.tried, "sees": r.sees} for r in rivals}
    with new_folder(out, "metrics.json") as folder:
        for name, content in (("rivals", tuned), ("findings", page), ("metrics", dict(metrics))):
            text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        write_report(page, folder / "report.html")
