"""Recall of the planner beside every baseline, on MovieLens-100K and MovieTweetings.

    make bench-planner-quality

Stages are folders below `runs/bench/planner-quality/<data set>/`; what is there already is taken as it is, so a bench
that was stopped goes on where it stood, and removing a folder measures it (and what it feeds) anew. Nothing is tuned on
test users: baselines, checkpoint and alignment are chosen on validation users.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from newfound.planner.alignment import WEIGHTS, Alignment, fit_alignment
from newfound.planner.decoding.search import Decoded
from rich.console import Console
from rich.table import Table

from newfound.clusters import Clusters, build_clusters
from newfound.config import TrainingConfig, load_config
from newfound.datasets import load_interactions
from newfound.evaluation.baselines import (
    Baseline,
    ClusterPools,
    Counts,
    Scorer,
    ranker_rival,
    simple_rivals,
    teacher_rival,
    tune,
)
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.cluster_sequence import sequence_rival
from newfound.evaluation.end_to_end import Catalogue, best_clusters, end_to_end_ranks
from newfound.evaluation.methods import Method, judge, method_of, paired, put, slices_of
from newfound.evaluation.moments import Context, Events
from newfound.evaluation.offline import SLATE, gather_moments, slate_widths
from newfound.evaluation.scorers import PlannerScorer
from newfound.features.user_history import check_histories, entity_rows, write_user_history
from newfound.measures import gains, hits, ranks_of
from newfound.planner.base_model import base_model
from newfound.planner.decoding.backbone import end_token
from newfound.planner.planner import Planner
from newfound.planner.prompt import PromptCodec, load_tokenizer
from newfound.planner.training.finetune import finetune_planner
from newfound.ranker import Ranker, train_ranker
from newfound.recommend import policy
from newfound.transitions.artifact import Transitions
from newfound.transitions.mine import mine_transitions

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "bench"
TWEETINGS = ROOT.parent / "shared" / "data" / "movietweetings-100k"
SLICES = ("all", "held_out", "sampled", "light", "heavy")
BLOCK = 256  # contexts that are read in full between two signs of life

log = logging.getLogger("newfound.bench")


def settings(name: str, quick: bool) -> TrainingConfig:
    """The committed configuration of the pipeline, pointed at a data set; a quick one only shows that all parts run."""
    overrides: dict[str, object] = {}
    if name == "movietweetings":
        overrides = {"data.loader": "movietweetings", "data.folder": str(TWEETINGS), "split.cut": "global"}
    if quick:
        overrides |= {"planner.finetune.steps": 2, "planner.finetune.evaluation_contexts": 16, "ranker.epochs": 1,
                      "ranker.refit": False, "evaluation.contexts_at_most": 60, "evaluation.validation_contexts": 20,
                      "evaluation.sequence_epochs": 1, "planner.match_rate_contexts": 4}  # fmt: skip
    return load_config(ROOT / "pipelines" / "configs" / "local.yaml", overrides)


class Stages:
    """Folders that are made once, in order."""

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        self.folder, self.config = folder, config
        folder.mkdir(parents=True, exist_ok=True)

    def make(self, name: str, build: Callable[[Path], object]) -> Path:
        """The stage's path, built unless it is there; half-built ones are thrown away."""
        path, part = self.folder / name, self.folder / f".{name}.part"
        if path.exists():
            log.info("%s: taken as it is", path.relative_to(RUNS))
            return path
        if part.is_dir():
            shutil.rmtree(part)
        started = time.monotonic()
        build(part)
        part.rename(path)
        log.info("%s: made in %.0f s", path.relative_to(RUNS), time.monotonic() - started)
        return path

    def histories(self, dataset: Path, out: Path) -> None:
        """What the feature store answers as of the cut, without one."""
        rows = self.folder / "rows.parquet"
        write_user_history(dataset, self.config.features.history_length, rows)
        found = pd.merge_asof(
            entity_rows(dataset).sort_values("event_timestamp"),
            pd.read_parquet(rows).sort_values("event_timestamp"),
            on="event_timestamp",
            by="user_id",
        )
        check_histories(found, out, dataset)

    def zero_shot(self, clusters: Path, out: Path) -> None:
        """The base model with the planner's prompt, without fine-tuning."""
        base = base_model(self.config.planner.model, out)
        if base != out:
            shutil.copytree(base, out)
        loaded = Clusters.load(clusters)
        PromptCodec(load_tokenizer(out), loaded.descriptions, end_token(out)).save(out)


class CachedScorer:
    """A scorer that scores the same events only once."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._known = scorer, {}

    def scores(self, events: Events) -> np.ndarray:
        key = (id(events.journeys), events.at.tobytes(), tuple(events.contexts))
        if key not in self._known:
            self._known[key] = self._scorer.scores(events)
        return self._known[key]


class Aligned:
    """A method whose proposals the alignment model puts in order: one model, by the same means for all."""

    def __init__(self, scorer: Scorer, alignment: Alignment, weight: float) -> None:
        self._scorer, self.weight = scorer, weight
        self._model = Alignment(alignment.level, alignment.pull, weight, alignment.clusters)

    def scores(self, events: Events) -> np.ndarray:
        index = {cluster: at for at, cluster in enumerate(events.journeys.order)}
        contexts = np.array([[index[c] for c in context] for context in events.contexts], dtype=np.int64)
        scores = normalised(self._scorer.scores(events), events.seen)
        return self._model.rerank(scores.astype(np.float32), contexts)


def align(method: Method, alignment: Alignment, validation: Events) -> Method:
    """The method with alignment; how much it counts is chosen on validation users, by engagement over rank."""
    engagement = 2 * validation.journeys.engagements[validation.at] - 1
    best, chosen = -np.inf, 0.0
    for weight in WEIGHTS if len(validation) else ():
        scores = Aligned(method.scorer, alignment, weight).scores(validation)
        value = float((engagement / (ranks_of(scores, validation.labels, validation.seen) + 1)).mean())
        if value > best:
            best, chosen = value, weight
    log.info("%s: alignment counts %.1f", method.key, chosen)
    scorer = Aligned(method.scorer, alignment, chosen)
    settings = {**method.chosen, "alignment_weight": chosen}
    return replace(
        method, key=f"{method.key}_aligned", label=f"{method.label}, aligned", scorer=scorer, chosen=settings,
        reads_context=True,
    )  # fmt: skip


class ZeroShot:
    """The base model without fine-tuning, whose scores of every context are worked out once, in full, and kept.

    It tells the descriptions so badly apart that the search would read nearly all of them anyway.

    Args:
        planner: the base model with the planner's prompt.
        file: where the scores are kept, since they take longer than all the rest.
    """

    def __init__(self, planner: Planner, file: Path) -> None:
        self.planner, self._file = planner, file
        self._known: dict[Context, np.ndarray] = {}
        if file.exists():
            kept = np.load(file)
            self._known = dict(zip(map(tuple, kept["contexts"].tolist()), kept["scores"], strict=True))

    def scores(self, contexts: Sequence[Context]) -> np.ndarray:
        """True log-probabilities, [C, N]."""
        new = [context for context in dict.fromkeys(contexts) if context not in self._known]
        for start in range(0, len(new), BLOCK):
            part = new[start : start + BLOCK]
            self._known.update(zip(part, self.planner.scores(part, exhaustive=True), strict=True))
            half_written = self._file.with_name(f".{self._file.name}")
            np.savez(half_written, contexts=list(self._known), scores=list(self._known.values()))
            half_written.rename(self._file)
            log.info("zero-shot: %d of %d contexts read in full", start + len(part), len(new))
        return np.stack([self._known[context] for context in contexts])

    def decode(self, contexts: Sequence[Context], k: int, allowed: np.ndarray | None = None) -> Decoded:
        """What `Planner.decode` gives, all of it exact."""
        scores = self.scores(contexts)
        scores = scores if allowed is None else np.where(allowed, scores, np.float32(-np.inf))
        return Decoded(scores, np.ones_like(scores, dtype=bool))


class Hinted:
    """An ablation: the planner whose prompt names the most frequent successor of the very pair, as a refresh does."""

    def __init__(self, planner: Planner, counts: Counts) -> None:
        self._planner = planner
        found: dict[Context, Counter[str]] = {}
        for context, label in zip(counts.contexts.tolist(), counts.labels.tolist(), strict=True):
            pair = tuple(planner.nodes[c] for c in context)
            found.setdefault(pair, Counter())[planner.nodes[label]] += 1
        self.hints = {pair: successors.most_common(1)[0][0] for pair, successors in found.items()}

    def decode(self, contexts: Sequence[Context], k: int, allowed: np.ndarray | None = None) -> Decoded:
        """What `Planner.decode` gives."""
        return self._planner.decode(contexts, k, allowed, [self.hints.get(context) for context in contexts])


def normalised(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Log-probabilities over what is new to the person, [B, N]; minus infinity elsewhere."""
    scores = np.where(seen, -np.inf, scores).astype(np.float64)
    top = scores.max(axis=1, keepdims=True)
    return scores - (np.log(np.exp(scores - top).sum(axis=1, keepdims=True)) + top)


class Combined:
    """An ablation: a method's log-probabilities and, with a weight, those of the ranker over the same new clusters.

    It says whether two interests tell anything that the ranker does not see in the whole history.
    """

    def __init__(self, scorer: Scorer, pools: ClusterPools, *, pool: str, weight: float) -> None:
        self._scorer, self._pools, self._pool, self._weight = scorer, pools, pool, weight

    def scores(self, events: Events) -> np.ndarray:
        theirs = normalised(self._pools.of(events)[self._pool], events.seen)
        # Where the ranker has nothing to show, the other decides among the last.
        theirs = np.maximum(theirs, theirs.max(axis=1, keepdims=True) - 50)
        return normalised(self._scorer.scores(events), events.seen) + self._weight * theirs


def combined(method: Method, pools: ClusterPools, validation: Events) -> Method:
    """The method with the ranker; how much that counts is chosen on validation users."""
    space: dict[str, Sequence[Any]] = {"pool": ClusterPools.NAMES, "weight": (0.25, 0.5, 1.0, 2.0, 4.0)}
    key = method.key.removeprefix("rival.")
    found: Baseline = tune(key, lambda **c: Combined(method.scorer, pools, **c), space, validation)
    log.info("%s with the ranker: %s", key, found.chosen)
    return replace(
        method, key=f"{key}_with_ranker", label=f"{method.label}, with the ranker", scorer=found.scorer,
        kind="ablation", chosen=found.chosen,
    )  # fmt: skip


class Mixture:
    """An ablation: the mean probability over all contexts that serving may draw, rather than one context's answers.

    It says what is lost by looking at two interests at a time. Scores are logarithms. Every context is scored
    once, however many moments offer it.

    Args:
        log_probabilities: of all clusters after some contexts, [C, N], up to a constant for each context.
    """

    def __init__(
        self, log_probabilities: Callable[[Events, list[Context]], np.ndarray], config: TrainingConfig
    ) -> None:
        self._log_probabilities, self._config = log_probabilities, config

    def scores(self, events: Events) -> np.ndarray:
        size = self._config.transitions.context
        offered = []
        for event in events.at.tolist():
            found = policy.interests(events.journeys.past_before(event), self._config.policy)
            offered.append([o for o in policy.context_distribution(found, size) if len(o[0]) == size])
        unique = sorted({context for contexts in offered for context, _ in contexts})
        place = {context: at for at, context in enumerate(unique)}
        logs = self._log_probabilities(events, unique)
        out = np.zeros((len(events), logs.shape[1]))
        for row, contexts in enumerate(offered):
            fresh = ~events.seen[row]
            for context, weight in contexts:
                exponent = logs[place[context]][fresh]
                share = np.exp(exponent - exponent.max())
                out[row, fresh] += weight * share / share.sum()
        return np.log(np.maximum(out, np.finfo(np.float64).tiny))


def propose(planner: Planner, clusters: Clusters) -> Callable[[np.ndarray], np.ndarray]:
    """The planner's scores of contexts that come as indices, as the alignment wants them."""

    def scores(contexts: np.ndarray) -> np.ndarray:
        return planner.scores([tuple(clusters.interface[c] for c in row) for row in contexts.tolist()], exact=SLATE)

    return scores


def by_rows(scorer: Scorer) -> Callable[[Events, list[Context]], np.ndarray]:
    """A scorer of moments as one of contexts: the moment is of no matter to those that read the context alone."""

    def scores(events: Events, contexts: list[Context]) -> np.ndarray:
        borrowed = Events(events.journeys, np.full(len(contexts), events.at[0]), contexts)
        return scorer.scores(borrowed)

    return scores


def run(name: str, quick: bool) -> dict[str, float]:
    """All stages of one data set, then the measures."""
    config = settings(name, quick)
    seed, stages = config.seed, Stages(RUNS / f"planner-quality{'-quick' * quick}" / name, config)
    dataset = stages.make("dataset", lambda p: load_interactions(config.data, config.split, seed, p))
    histories = stages.make("histories.parquet", lambda p: stages.histories(dataset, p))
    clusters = stages.make("clusters", lambda p: build_clusters(dataset, histories, config.clusters, seed, p))
    transitions = stages.make(
        "transitions", lambda p: mine_transitions(histories, dataset, clusters, config.transitions, seed, p)
    )
    zero_shot = stages.make("zero-shot", lambda p: stages.zero_shot(clusters, p))
    tuned = config.planner.model_copy(update={"model": str(zero_shot)})  # the same base, unpacked once
    planner = stages.make("planner", lambda p: finetune_planner(transitions, clusters, tuned, seed, p))
    ranker = stages.make(
        "ranker", lambda p: train_ranker(dataset, histories, clusters, config.ranker, seed, config.threads, p)
    )
    return measure(name, config, dataset, histories, clusters, transitions, zero_shot, planner, ranker)


def measure(
    name: str,
    config: TrainingConfig,
    dataset: Path,
    histories: Path,
    clusters: Path,
    transitions: Path,
    zero_shot: Path,
    planner: Path,
    ranker: Path,
) -> dict[str, float]:
    """Every method at the same moments of test users."""
    interests, seed = Clusters.load(clusters), config.seed
    moments = gather_moments(dataset, interests, config)
    mined = Transitions.load(transitions, interests)
    counts = mined.counts()
    item_policy = Ranker.load(ranker)
    catalogue = Catalogue(item_policy.items, interests)
    validation, limits = moments.validation, config.evaluation
    choices = mined.choices()
    baselines = [
        *simple_rivals(counts, interests, validation, seed),
        teacher_rival(choices, validation, seed, config.planner.finetune.teacher_epochs),
        sequence_rival(histories, clusters, mined, validation, limits.sequence_epochs, seed),
        ranker_rival(item_policy, catalogue, validation),
    ]
    planners = {
        key: Planner.load(path, interests, precision=config.planner.precision)
        for key, path in (("planner", planner), ("planner_zero_shot", zero_shot))
    }
    zero_shot_planner = ZeroShot(planners["planner_zero_shot"], zero_shot.with_name("zero-shot-scores.npz"))
    hinted = Hinted(planners["planner"], counts)
    by_name = {baseline.name: baseline.scorer for baseline in baselines}
    alignment, alignment_measures = fit_alignment(mined, propose(planners["planner"], interests))
    frequency = by_rows(by_name["pair_frequency"])
    mixtures = [
        ("planner", lambda events, contexts: planners["planner"].scores(contexts), "Planner"),
        ("choice_model", by_rows(by_name["choice_model"]), "Choice model"),
        ("pair_frequency", lambda e, c: np.log(np.maximum(frequency(e, c), 1e-12)), "Pair frequency"),
    ]
    methods = [
        Method("planner", "Planner, fine-tuned", PlannerScorer(planners["planner"]), "ours"),
        Method("planner_zero_shot", "Planner, zero-shot", PlannerScorer(zero_shot_planner), "ours"),
        *(method_of(baseline) for baseline in baselines),
        Method("planner_hinted", "Planner, with hints", PlannerScorer(hinted), "ablation"),
        *(
            Method(
                f"{key}_mixture",
                f"{label}, all recent pairs",
                Mixture(scores, config),
                "ablation",
                reads_context=False,
            )
            for key, scores, label in mixtures
        ),
    ]
    methods = [replace(method, scorer=CachedScorer(method.scorer)) for method in methods]
    pools = ClusterPools(item_policy, catalogue)
    methods += [
        combined(method, pools, moments.short_validation)
        for method in methods
        if method.key in ("planner", "planner_mixture", "rival.choice_model", "rival.cluster_sequence")
    ]
    methods += [
        align(method, alignment, moments.short_validation)
        for method in methods
        if method.kind != "ablation" and method.key not in ("planner_zero_shot", "rival.random_novel")
    ]
    boot = Bootstrap(moments.test.users, resamples=limits.bootstrap, confidence=limits.confidence, seed=seed)
    withheld = mined.withheld()
    slices = slices_of(moments.test, withheld, config.policy, config.transitions.context, seed)
    nothing = np.zeros_like(moments.test.seen)  # planners answer novel clusters alone; leak looks at raw answers
    raw: dict[str, np.ndarray] = {
        "planner": best_clusters(planners["planner"].scores(moments.test.contexts, exact=SLATE), nothing, SLATE),
        "planner_zero_shot": best_clusters(zero_shot_planner.scores(moments.test.contexts), nothing, SLATE),
    }
    # To a model without fine-tuning every pair is as new as those that were withheld: it needs no slice of its own.
    not_tuned = [method for method in methods if method.key == "planner_zero_shot"]
    others = [method for method in methods if method.key != "planner_zero_shot"]
    metrics, answers, _ = judge(others, moments.test, slices, counts.frequency, boot, raw)
    own = [part for part in slices if part.contexts is None]
    more, its_answers, _ = judge(not_tuned, moments.test, own, counts.frequency, boot, raw)
    metrics |= more
    metrics |= {f"planner.{key}": value for key, value in alignment_measures.items()}
    for ours in ("planner", "planner_aligned"):
        paired(metrics, ours, answers, slices, boot)
        paired(metrics, ours, {ours: answers[ours], **its_answers}, own, boot)
    answers = {**answers, **its_answers}
    unique = sorted(set(moments.test.contexts))[: config.planner.match_rate_contexts]
    for key, model in planners.items():
        metrics[f"{key}.match_rate"] = model.match_rate(unique)
    widths = slate_widths(item_policy, catalogue, moments.short_validation, methods)
    chosen = {m.key: answers[m.key].best[:, : widths[m.key]] for m in methods}
    for key, ranks in end_to_end_ranks(item_policy, catalogue, moments.test, chosen, SLATE).items():
        key = key if key in chosen else f"rival.{key}"
        put(metrics, f"{key}.novel_hr@10", boot.mean(hits(ranks, SLATE)))
        put(metrics, f"{key}.novel_ndcg@10", boot.mean(gains(ranks, SLATE)))
    metrics["planner_hinted.hinted_share"] = float(np.mean([c in hinted.hints for c in moments.test.contexts]))
    for part in slices:
        metrics[part.name("events", "moments")] = float(part.mask.sum())
    metrics["events.users"] = float(len(np.unique(moments.test.users)))
    show(name, metrics, methods)
    return {f"{name}.{flat(key)}": value for key, value in metrics.items() if np.isfinite(value)}


def flat(key: str) -> str:
    """The bench names every slice, `all` included, and drops the prefix of baselines: `<method>.<slice>.<measure>`."""
    method, _, rest = key.removeprefix("rival.").partition(".")
    if method.endswith("minus") or rest.startswith("minus."):
        return f"{method}.{rest}"
    return f"{method}.{rest}" if rest.startswith(tuple(f"{s}." for s in SLICES)) else f"{method}.all.{rest}"


def show(name: str, metrics: dict[str, float], methods: list[Method]) -> None:
    """One table a data set."""
    table = Table(title=f"{name}: {metrics['events.moments']:.0f} moments of {metrics['events.users']:.0f} test users")
    table.add_column("")
    columns = [("all @1", "novel_recall@1"), ("@10", "novel_recall@10"), ("held-out @1", "held_out.novel_recall@1"),
               ("@10", "held_out.novel_recall@10"), ("sampled @10", "sampled.novel_recall@10"),
               ("light @10", "light.novel_recall@10"), ("heavy @10", "heavy.novel_recall@10"),
               ("coverage", "label_coverage"), ("NovelHR@10", "novel_hr@10")]  # fmt: skip
    for title, _ in columns:
        table.add_column(title, justify="right")
    for key, label in [("chance", "Chance"), *((m.key, m.label) for m in methods)]:
        values = [metrics.get(f"{key}.{end}") for _, end in columns]
        table.add_row(
            label, *("" if v is None else f"{v:.3f}" for v in values), style="bold" if key.startswith("planner") else ""
        )
    Console(width=150).print(table)


def processor() -> str:
    """Its name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=["movielens-100k", "movietweetings"])
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, written apart")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out = RUNS / f"planner-quality{'-quick' * args.quick}.json"
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name in args.datasets:
        if name == "movietweetings" and not TWEETINGS.exists():
            log.warning("movietweetings: left out, %s is absent", os.path.relpath(TWEETINGS, ROOT))
            continue
        started = time.monotonic()
        found = {key: value for key, value in found.items() if not key.startswith(f"{name}.")} | run(name, args.quick)
        found[f"{name}.seconds"] = round(time.monotonic() - started, 1)
        found["seed"] = settings(name, args.quick).seed
        found["processor"] = processor()
        found |= {f"version.{package}": version(package) for package in ("newfound", "torch", "transformers", "numpy")}
        out.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")
    log.info("written to %s", out.relative_to(ROOT))


if __name__ == "__main__":
    main()
