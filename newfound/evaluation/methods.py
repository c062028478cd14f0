"""All methods at the same moments: ranks, measures, slices, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from newfound import measures
from newfound.config import PolicyConfig
from newfound.evaluation.baselines import Baseline, Scorer
from newfound.evaluation.bootstrap import Bootstrap, Interval
from newfound.evaluation.end_to_end import best_clusters
from newfound.evaluation.moments import Events, light_users, sampled_contexts, withheld_contexts
from newfound.types import Bools, Context, Ints

KS = (1, 10)


@dataclass(frozen=True)
class Method:
    """Something that ranks clusters, with what the report says of it."""

    key: str
    label: str
    scorer: Scorer
    kind: str = "rival"
    """`ours`, or `rival` for a baseline, as metrics.json and the page call them"""
    reads_context: bool = True
    """False where it reads the history alone, so that another context changes nothing"""
    chosen: dict[str, Any] = field(default_factory=dict)
    sees: str = "training transitions"


def method_of(one: Baseline) -> Method:
    """A baseline as one of the methods."""
    return Method(f"rival.{one.name}", one.label, one.scorer, "rival", one.reads_context, one.chosen, one.sees)


@dataclass(frozen=True)
class Slice:
    """Some of the moments, possibly in other contexts than their last interests."""

    key: str
    mask: Bools
    """[B]"""
    note: str = ""
    contexts: Sequence[Context] | None = None
    """[B], where they are other ones"""

    def name(self, method: str, measure: str) -> str:
        """Key of a measure in metrics.json; the slice of all moments is not named."""
        return f"{method}.{measure}" if self.key == "all" else f"{method}.{self.key}.{measure}"


@dataclass(frozen=True)
class Answers:
    """Answers of one method at the moments."""

    ranks: dict[str, Ints]
    """by slice, [B] ranks of the truth; meaningless outside the slice's mask"""
    best: Ints
    """[B, 10], the best novel clusters after the last interests"""
    raw: Ints
    """[B, 10], the same before the history is taken out"""


def answers_of(method: Method, events: Events, slices: Sequence[Slice]) -> Answers:
    """Asks a method, once for the last interests and once for each slice that has contexts of its own."""
    scores = method.scorer.scores(events)
    last = measures.ranks_of(scores, events.labels, events.seen)
    ranks = {}
    for part in slices:
        ranks[part.key] = last
        if part.contexts is not None and method.reads_context and part.mask.any():
            rows = np.flatnonzero(part.mask)
            asked = events.with_contexts(list(part.contexts)).take(rows)
            ranks[part.key] = np.zeros_like(last)
            ranks[part.key][rows] = measures.ranks_of(method.scorer.scores(asked), asked.labels, asked.seen)
    return Answers(
        ranks=ranks,
        best=best_clusters(scores, events.seen, max(KS)),
        raw=best_clusters(scores, np.zeros_like(events.seen), max(KS)),
    )


def slices_of(events: Events, withheld: set[Context], policy: PolicyConfig, size: int, seed: int) -> list[Slice]:
    """All moments; in withheld contexts; in contexts drawn as serving draws them; light and heavy users."""
    light = light_users(events)
    median = int(np.median(events.past_sizes)) if len(events) else 0
    everything = np.ones(len(events), dtype=bool)
    held, held_contexts = withheld_contexts(events, withheld, policy, size, seed)
    drawn = sampled_contexts(events, policy, size, seed)
    return [
        Slice("all", everything),
        Slice(
            "held_out",
            held,
            "Contexts that were withheld from all training transitions by design, frequent and rare ones alike, at the "
            "moments at which serving could have drawn one.",
            held_contexts,
        ),
        Slice("sampled", everything, "Recent interests drawn by recency and engagement.", drawn),
        Slice("light", light, f"No more past events than the median moment's user (about {median})."),
        Slice("heavy", ~light, "More past events than that."),
    ]


def put(metrics: dict[str, float], key: str, found: Interval) -> None:
    """Writes a figure and its interval, as far as they exist."""
    for name, value in ((key, found.value), (f"{key}.lower", found.lower), (f"{key}.upper", found.upper)):
        if np.isfinite(value):
            metrics[name] = float(value)


def measure_methods(
    methods: Sequence[Method],
    events: Events,
    slices: Sequence[Slice],
    frequency: Ints,
    boot: Bootstrap,
    raw: Mapping[str, Ints],
) -> tuple[dict[str, float], dict[str, Answers], dict[str, list[float | None]]]:
    """Every measure of clusters, for every method and slice.

    Args:
        methods: who is asked.
        events: moments in the context of the last interests.
        slices: of the moments.
        frequency: [N], training labels, for the deciles.
        boot: resamples of the moments' users.
        raw: by method, its ten best before the history is taken out, where its scores leave the history out already.

    Returns:
        metrics by flat key; each method's answers; macro recall@10 by decile for each method.
    """
    metrics: dict[str, float] = {}
    answers: dict[str, Answers] = {}
    deciles: dict[str, list[float | None]] = {}
    n = events.seen.shape[1]
    blind = {k: measures.chance(k, n, events.seen.sum(axis=1)) for k in KS}
    for part in slices:
        for k in KS:
            put(metrics, part.name("chance", f"novel_recall@{k}"), boot.mean(blind[k], part.mask))
    for method in methods:
        found = answers[method.key] = answers_of(method, events, slices)
        for part in slices:
            ranks = found.ranks[part.key]
            for k in KS:
                hits = measures.hits(ranks, k)
                put(metrics, part.name(method.key, f"novel_recall@{k}"), boot.mean(hits, part.mask))
            over = boot.ratio(measures.hits(ranks, 1), blind[1], part.mask)
            put(metrics, part.name(method.key, "recall_over_chance"), over)
            mrr = boot.mean(measures.reciprocal_ranks(ranks, n), part.mask)
            put(metrics, part.name(method.key, "mrr"), mrr)
        metrics |= _breadth(method.key, found, raw.get(method.key, found.raw), events, frequency, n)
        values = measures.recall_by_decile(found.ranks["all"], events.labels, frequency, max(KS))
        deciles[method.key] = [float(v) if np.isfinite(v) else None for v in values]
    return metrics, answers, deciles


def _breadth(key: str, found: Answers, raw: Ints, events: Events, frequency: Ints, n: int) -> dict[str, float]:
    """Spread of a method's answers, and the share of them that the user knew already."""
    first = measures.answer_counts(found.best[:, :1], n)
    figures = {
        "label_coverage": measures.label_coverage(found.best[:, :1], n),
        "macro_recall@10": measures.macro_recall(found.ranks["all"], events.labels, frequency, 10),
        "label_coverage@10": measures.label_coverage(found.best, n),
        "gini": measures.gini(first),
        "normalised_entropy": measures.normalised_entropy(first),
        "leak": measures.leak(raw, events.seen),
    }
    return {f"{key}.{name}": value for name, value in figures.items() if np.isfinite(value)}


def paired(
    metrics: dict[str, float], ours: str, answers: Mapping[str, Answers], slices: Sequence[Slice], boot: Bootstrap
) -> None:
    """Adds how far `ours` is ahead of each baseline, over the same resamples: `<ours>.minus.<name>.novel_recall@k`."""
    for other, theirs in answers.items():
        if other == ours:
            continue
        for part in slices:
            for k in KS:
                ahead = measures.hits(answers[ours].ranks[part.key], k)
                found = boot.difference(ahead, measures.hits(theirs.ranks[part.key], k), part.mask)
                put(metrics, part.name(f"{ours}.minus.{other.removeprefix('rival.')}", f"novel_recall@{k}"), found)
