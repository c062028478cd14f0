"""The proof: the planner, its table and the ranker on what came after the cut, beside chance and the baselines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from newfound.clusters import Clusters
from newfound.config import TrainingConfig
from newfound.datasets import Dataset
from newfound.errors import DataError
from newfound.evaluation import moments as moments_of
from newfound.evaluation.baselines import Baseline, ranker_baseline, simple_baselines, teacher_baseline
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.cluster_sequence import sequence_baseline
from newfound.evaluation.end_to_end import Catalogue
from newfound.evaluation.item_measures import SLATE, end_to_end_measures, quota_measures, ranker_measures
from newfound.evaluation.methods import Answers, Method, measure_methods, method_of, paired, slices_of
from newfound.evaluation.moments import Events
from newfound.evaluation.report import findings
from newfound.evaluation.report.page import write_report
from newfound.evaluation.scorers import Live, PlannerScorer, TableScorer
from newfound.evaluation.served import open_recommender, served_measures
from newfound.files import new_folder
from newfound.planner.prompt import has_planner
from newfound.transitions.artifact import Transitions
from newfound.types import Context

if TYPE_CHECKING:
    from newfound.ranker import Ranker
    from newfound.recommend.recommender import Recommender

log = logging.getLogger("newfound.evaluation")

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
    """Reads the journeys of test and validation users and finds the moments at which they liked something new.

    Raises:
        DataError: there is no such moment of a test user.
    """
    size, limits = config.transitions.context, config.evaluation
    journeys = moments_of.read_journeys(dataset, clusters, ["test"], limits.users_at_most, config.seed)
    test = moments_of.at_most(moments_of.novel_events(journeys, size), limits.contexts_at_most, config.seed)
    if not len(test):
        raise DataError(
            str(dataset),
            "no test user likes anything of a new cluster after the cut",
            expected="more test users, a larger future, or more clusters",
        )
    others = moments_of.read_journeys(dataset, clusters, ["validation"], limits.users_at_most, config.seed)
    tuning = moments_of.novel_events(others, size)
    short = moments_of.at_most(tuning, limits.validation_contexts, config.seed)
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
    experiment: Path,
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
        experiment: the small experiment's folder, whose measures join these as `experiment.<name>`.
        tuned: the tuning's folder, for the report.
        config: the whole configuration.
        out: the folder to write; metrics.json comes last.

    Returns:
        The measures, by the flat keys of metrics.json.

    Raises:
        DataError: an input is missing, or no test user liked anything new after the cut.
    """
    interests, limits = Clusters.load(clusters), config.evaluation
    moments = _timed("moments", lambda: gather_moments(dataset, interests, config))
    fit = _Fit.open(dataset, histories, clusters, interests, transitions, ranker)
    boot = Bootstrap(moments.test.users, resamples=limits.bootstrap, confidence=limits.confidence, seed=config.seed)
    baselines = _baselines(fit, moments.validation, config)
    ours, served, metrics = _ours(fit, planner, table, baselines, moments.test, config)
    methods = [*ours, *(method_of(baseline) for baseline in baselines)]
    withheld = fit.mined.withheld()
    slices = slices_of(moments.test, withheld, config.policy, config.transitions.context, config.seed)
    raw = {method.key: served.raw(moments.test.contexts, SLATE) for method in ours}
    measuring = partial(measure_methods, methods, moments.test, slices, fit.mined.counts().frequency, boot, raw)
    measured, answers, deciles = _timed("methods measured", measuring)
    metrics |= measured
    paired(metrics, methods[0].key, answers, slices, boot)
    serving = open_recommender(dataset, clusters, table, ranker, decision, config.policy)
    metrics |= _item_figures(fit, serving, moments, methods, answers, boot, config)
    curve = _timed("quota curve", lambda: _quota(fit, served, config))
    metrics |= {f"quota.{q}.hr@10": value for q, value in enumerate(curve.get("hr", []))}
    metrics = _complete(metrics, moments.test, experiment)
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
    _write(out, metrics, baselines, findings.gather(evidence))
    return metrics


@dataclass(frozen=True)
class _Fit:
    """The parts of a fit that several measures read."""

    dataset: Path
    histories: Path
    folder: Path
    """of the clusters"""
    clusters: Clusters
    mined: Transitions
    ranker: Ranker
    catalogue: Catalogue

    @classmethod
    def open(
        cls, dataset: Path, histories: Path, folder: Path, clusters: Clusters, transitions: Path, ranker: Path
    ) -> _Fit:
        from newfound.ranker import Ranker

        policy = Ranker.load(ranker)
        mined = Transitions.load(transitions, clusters)
        return cls(dataset, histories, folder, clusters, mined, policy, Catalogue(policy.items, clusters))


def _baselines(fit: _Fit, validation: Events, config: TrainingConfig) -> list[Baseline]:
    """Every baseline of the planner, tuned."""
    counts, seed, clusters = fit.mined.counts(), config.seed, fit.clusters
    found = _timed("simple baselines", lambda: simple_baselines(counts, clusters, validation, seed))
    choices, epochs = fit.mined.choices(), config.planner.finetune.teacher_epochs
    found.append(_timed("choice model", lambda: teacher_baseline(choices, validation, seed, epochs)))
    if config.evaluation.sequence_epochs:
        learned = (fit.histories, fit.folder, fit.mined, validation, config.evaluation.sequence_epochs)
        found.append(_timed("sequence model over clusters", lambda: sequence_baseline(*learned, seed)))
    found.append(_timed("ranker by cluster", lambda: ranker_baseline(fit.ranker, fit.catalogue, validation)))
    return found


def _ours(
    fit: _Fit, planner: Path, table: Path, baselines: Sequence[Baseline], events: Events, config: TrainingConfig
) -> tuple[list[Method], TableScorer, dict[str, float]]:
    """The planner, where there is one, and its table as served; and what is measured of the planner alone."""
    from newfound.table import TransitionTable

    methods: list[Method] = []
    metrics: dict[str, float] = {"planner.present": 0.0}
    live: Live | None = None
    if has_planner(planner):
        policy, scorer = _timed("planner loaded", lambda: _load_planner(planner, fit.clusters, config))
        metrics |= {"planner.present": 1.0, "planner.match_rate": _match_rate(policy, events, config)}
        methods.append(Method("planner", "Planner, fine-tuned", scorer, "ours"))
        live = partial(_answer_live, policy)
    backup = next(baseline.scorer for baseline in baselines if baseline.name == "pair_frequency")
    served = TableScorer(TransitionTable.load(table, fit.clusters), fit.clusters.interface, backup, live)
    sees = "the planner; pair frequency below it"
    return [*methods, Method("table", "Transition table, as served", served, "ours", sees=sees)], served, metrics


def _item_figures(
    fit: _Fit,
    serving: Recommender,
    moments: Moments,
    methods: Sequence[Method],
    answers: Mapping[str, Answers],
    boot: Bootstrap,
    config: TrainingConfig,
) -> dict[str, float]:
    """The ranker alone, slates of every method, and the slate as served."""
    ranker, catalogue, limits = fit.ranker, fit.catalogue, config.evaluation
    alone = partial(ranker_measures, fit.dataset, fit.clusters, ranker, catalogue, limits, config.seed)
    metrics = _timed("items", alone)
    tested = (moments.test, moments.short_validation, methods, answers, boot)
    metrics |= _timed("end to end", lambda: end_to_end_measures(ranker, catalogue, *tested))
    metrics |= _timed("slates as served", lambda: served_measures(serving, ranker, moments.test, boot))
    return metrics | {name: metrics[f"served.{name}"] for name in ("novel_hr@10", "novel_ndcg@10")}


def _quota(fit: _Fit, served: TableScorer, config: TrainingConfig) -> dict[str, Any]:
    """The curve over the novelty quota, of the next liked items of test users."""
    limits = config.evaluation
    users = max(1, limits.users_at_most // limits.liked_items)
    walks = moments_of.read_journeys(fit.dataset, fit.clusters, ["test"], users, config.seed)
    liked = moments_of.next_positive_events(walks, config.transitions.context, limits.liked_items)
    return quota_measures(fit.ranker, fit.catalogue, liked, served)


def _load_planner(folder: Path, clusters: Clusters, config: TrainingConfig) -> tuple[Any, PlannerScorer]:
    from newfound.planner.planner import Planner

    planner = Planner.load(folder, clusters, precision=config.planner.precision)
    return planner, PlannerScorer(planner)


def _answer_live(planner: Any, contexts: Sequence[Context]) -> list[list[tuple[str, float]]]:
    """Answers to contexts that the planner's table does not hold, best first."""
    best, values = planner.top_k(contexts, len(planner))
    return [
        [(planner.nodes[at], value) for at, value in zip(row, scores, strict=True) if at >= 0]
        for row, scores in zip(best.tolist(), values.tolist(), strict=True)
    ]


def _complete(metrics: Mapping[str, float], events: Events, experiment: Path) -> dict[str, float]:
    """All measures, those of the small experiment and the counts among them, without what is no number."""
    file = experiment / "experiment.json"
    try:
        tried = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(file), f"cannot be read ({error})", expected="the small experiment's record") from error
    counted = {"events": len(events), "users": len(np.unique(events.users))}
    whole = {**metrics, **{f"experiment.{name}": value for name, value in tried.items()}, **counted}
    return {key: float(value) for key, value in whole.items() if np.isfinite(value)}


def _match_rate(planner: Any, events: Events, config: TrainingConfig) -> float:
    """Free decoding over an even choice of the test moments' contexts."""
    unique = sorted(set(events.contexts))
    wanted = np.linspace(0, len(unique) - 1, min(config.planner.match_rate_contexts, len(unique))).astype(int)
    return float(planner.match_rate([unique[at] for at in wanted]))


def _write(out: Path, metrics: Mapping[str, float], baselines: Sequence[Baseline], page: Mapping[str, Any]) -> None:
    """The folder, known by its metrics.json."""
    tuned = {b.name: {"chosen": b.chosen, "tried": b.tried, "sees": b.sees} for b in baselines}
    with new_folder(out, "metrics.json") as folder:
        for name, content in (("rivals", tuned), ("findings", page), ("metrics", dict(metrics))):
            text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        write_report(page, folder / "report.html")
