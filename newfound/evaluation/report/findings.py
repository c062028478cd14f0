"""Findings of an evaluation for the report, in plain JSON: facts, examples, curves, and how to read the figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.clusters.fidelity import WARN_BELOW
from newfound.config import TrainingConfig
from newfound.datasets import Dataset
from newfound.evaluation.methods import Method, Slice
from newfound.evaluation.moments import Events
from newfound.evaluation.scorers import TableScorer
from newfound.evaluation.served import history_before
from newfound.gates import release_checks, release_flags
from newfound.recommend import policy
from newfound.recommend.recommender import Recommender
from newfound.types import Context

ANSWERS = 5
PLANNER_CHARTS = (
    ("Training loss", "nats an answer", {"loss": "loss"}),
    ("Validation users", "recall of the next new interest", {"novel_recall@1": "@1", "novel_recall@10": "@10"}),
)
RANKER_CHARTS = (
    ("Training loss", "nats an item", {"loss": "loss"}),
    ("Each user's last past item", "all items ranked", {"ndcg@10": "NDCG@10", "hr@10": "HR@10"}),
)


@dataclass(frozen=True)
class Evidence:
    """Everything that an evaluation has at its end."""

    dataset: Dataset
    clusters: Clusters
    config: TrainingConfig
    metrics: Mapping[str, float]
    methods: Sequence[Method]
    slices: Sequence[Slice]
    events: Events
    withheld: set[Context]
    deciles: Mapping[str, Any]
    quota: Mapping[str, Any]
    served: TableScorer
    recommender: Recommender
    folders: Mapping[str, Path | None]
    """of planner, ranker and tuned"""


def gather(evidence: Evidence) -> dict[str, Any]:
    """The findings, all of it JSON."""
    return {
        "dataset": {"name": str(evidence.dataset.info["name"])},
        "facts": _facts(evidence),
        "confidence": evidence.config.evaluation.confidence,
        "gates": [
            {"name": c.name, "label": c.label, "value": _finite(c.value), "bound": c.bound, "passed": c.passed}
            for c in release_checks(evidence.metrics, evidence.config.evaluation)
        ],
        "flags": release_flags(evidence.metrics, evidence.config.evaluation),
        "metrics": dict(sorted(evidence.metrics.items())),
        "decision": evidence.recommender.catalogue.decision.model_dump(mode="json"),
        "methods": [
            {"key": m.key, "label": m.label, "kind": m.kind, "sees": m.sees, "chosen": m.chosen}
            for m in evidence.methods
        ],
        "slices": _slices(evidence),
        "deciles": {key: evidence.deciles[key] for key in _curves_shown(evidence.methods)},
        **_interests(evidence),
        "transitions": _transitions(evidence),
        "training": _training(evidence.folders),
        "tuning": _tuning(evidence.folders.get("tuned")),
        "quota": dict(evidence.quota),
        "slates": _slates(evidence),
        "notes": _notes(evidence),
        "lineage": [
            f"data {evidence.dataset.info['fingerprint'][:12]}, clusters {evidence.clusters.digest[:12]}, "
            f"seed {evidence.config.seed}"
        ],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _facts(evidence: Evidence) -> list[list[str]]:
    counts = evidence.dataset.info["counts"]
    cut = {"global": "one moment for everybody", "user": "each user's last events"}[evidence.config.split.cut]
    return [
        *([name, f"{counts[name]:,}"] for name in ("users", "items", "interactions")),
        ["interests", f"{len(evidence.clusters.interface):,}"],
        ["test users", f"{counts['test_users']:,}"],
        ["cut", cut],
        *_fidelity(evidence.clusters.info.get("description_fidelity", {})),
    ]


def _fidelity(found: dict[str, float]) -> list[list[str]]:
    """Fidelity of descriptions to their interests; nothing where no item has text."""
    if not found:
        return []
    at_ten, ids = found["description_fidelity@10"], found["description_fidelity.ids@10"]
    warned = " (little language is in the descriptions)" if at_ten < WARN_BELOW else ""
    return [["descriptions find their items' interest among ten", f"{at_ten:.0%}, by ids {ids:.0%}{warned}"]]


def _slices(evidence: Evidence) -> list[dict[str, Any]]:
    users = evidence.events.users
    return [
        {"key": s.key, "events": int(s.mask.sum()), "users": len(np.unique(users[s.mask])), "note": s.note}
        for s in evidence.slices
    ]


def _curves_shown(methods: Sequence[Method]) -> list[str]:
    """Few enough lines to tell apart."""
    wanted = (
        "planner",
        "table",
        "rival.most_popular",
        "rival.pair_frequency",
        "rival.cluster_sequence",
        "rival.ranker_novel",
    )
    keys = [method.key for method in methods]
    return [key for key in wanted if key in keys and not (key == "table" and "planner" in keys)]


def _spread(values: Sequence[float]) -> list[float]:
    """Coordinates over the map, with room for the bubbles at its edge."""
    if not len(values):
        return []
    low, high = min(values), max(values)
    return [round(0.06 + 0.88 * (v - low) / ((high - low) or 1.0), 4) for v in values]


def _interests(evidence: Evidence) -> dict[str, Any]:
    """The map, its legend, and the list of interests."""
    clusters = evidence.clusters
    tops = [clusters.ancestor_of(node, 1) for node in clusters.interface]
    groups = list(dict.fromkeys(tops))
    coloured = clusters.interface_level > 1 and len(groups) <= 12
    sizes = [stop - start for start, stop in map(clusters.slice_of, clusters.interface)]
    layout = clusters.layout.to_pydict()
    x, y = (_spread(layout[axis]) for axis in (schema.X, schema.Y))
    places = dict(zip(layout[schema.NODE], zip(x, y, strict=True), strict=True))
    bubbles, listed = [], []
    for at, (node, label) in enumerate(zip(clusters.interface, clusters.descriptions, strict=True)):
        share = float(clusters.traffic[at])
        parent = clusters.parent_of(node)
        listed.append(
            {
                "description": label,
                "parent": clusters.description_of(parent) if parent else "",
                "size": sizes[at],
                "traffic": share,
            }
        )
        if node in places:
            bubbles.append(
                {
                    "label": label,
                    "x": places[node][0],
                    "y": places[node][1],
                    "share": share,
                    "group": groups.index(tops[at]) if coloured else 0,
                    "detail": f"{sizes[at]:,} items, {100 * share:.2f} % of the positive interactions",
                }
            )
    legend = [clusters.description_of(node) for node in groups] if coloured else []
    return {"map": bubbles, "map_groups": legend, "interests": listed}


def _transitions(evidence: Evidence) -> list[dict[str, Any]]:
    """The table's answers for the contexts that test users offered most, two of them withheld ones where there are."""
    seen = Counter(evidence.events.contexts)
    ordered = [c for c, _ in sorted(seen.items(), key=lambda p: (-p[1], p[0])) if evidence.served.answers(c)[0]]
    wanted = evidence.config.evaluation.examples
    withheld = [context for context in ordered if context in evidence.withheld][: wanted // 3]
    usual = [context for context in ordered if context not in evidence.withheld][: wanted - len(withheld)]
    clusters = evidence.clusters
    found = []
    for context in usual + withheld:
        rows = [row for row, other in enumerate(evidence.events.contexts) if other == context]
        opened = {int(evidence.events.labels[row]) for row in rows}
        answers, scores = evidence.served.answers(context)
        found.append(
            {
                "context": [clusters.description_of(node) for node in context],
                "observed": len(rows),
                "held_out": context in evidence.withheld,
                "answers": [
                    {
                        "cluster": clusters.descriptions[cluster],
                        "probability": float(np.exp(score)),
                        "observed": cluster in opened,
                    }
                    for cluster, score in list(zip(answers, scores, strict=True))[:ANSWERS]
                ],
            }
        )
    return found


def _slates(evidence: Evidence) -> list[dict[str, Any]]:
    """Slates of a few test users at their last moments, as served: light, middling and heavy ones."""
    config, events, clusters = evidence.config, evidence.events, evidence.clusters
    last = {user: row for row, user in enumerate(events.users.tolist())}
    rows = np.array(sorted(last.values(), key=lambda row: (events.past_sizes[row], row)), dtype=np.int64)
    rows = rows[np.linspace(0, len(rows) - 1, min(config.evaluation.examples, len(rows)) + 2).astype(int)[1:-1]]
    histories = [history_before(events, int(row)) for row in rows]
    seeds = [config.seed + int(events.at[row]) for row in rows]
    slates = []
    for history, slate in zip(histories, evidence.recommender.recommend_all(histories, seeds), strict=True):
        past, _ = evidence.recommender.catalogue.past_of(history)
        slots = [
            {"title": one.title, "cluster": one.interest, "kind": one.slot.value, "because": list(one.because)}
            for one in slate.items
        ]
        lately = [clusters.description_of(i.cluster) for i in policy.interests(past, config.policy)[-3:]]
        size = len(history.item_ids)
        slates.append({"user": f"A test user with {size:,} events", "interests": lately[::-1], "slots": slots})
    return slates


def _read(folder: Path | None, name: str) -> Any:
    """A JSON record, None where it is absent."""
    file = Path(folder) / name if folder else None
    return json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else None


def _training(folders: Mapping[str, Path | None]) -> list[dict[str, Any]]:
    found = []
    for title, key, x, charts in (
        ("The planner", "planner", "step", PLANNER_CHARTS),
        ("The ranker", "ranker", "epoch", RANKER_CHARTS),
    ):
        record = _read(folders.get(key), "training.json")
        if not isinstance(record, dict) or not record.get("curve"):
            continue
        kept = record.get(f"chosen_{x}", record.get("measures", {}).get(x))
        note = f"{x.capitalize()} {kept:g} was kept." if isinstance(kept, int | float) else ""
        drawn = [{"title": t, "unit": unit, "series": series} for t, unit, series in charts]
        found.append({"title": title, "x": x, "note": note, "curve": record["curve"], "charts": drawn})
    return found


def _tuning(folder: Path | None) -> list[dict[str, Any]]:
    """The trials of the ranker's search, by number."""
    trials: list[dict[str, Any]] = _read(folder, "trials.json") or []
    return [
        {
            "number": trial["number"],
            "value": trial.get("ndcg@10"),
            "state": trial.get("state", ""),
            "params": trial.get("settings", {}),
            "curve": trial.get("curve", []),
        }
        for trial in sorted(trials, key=lambda trial: trial["number"])
    ]


def _notes(evidence: Evidence) -> list[str]:
    """Notes on how the figures came to be, and on what they do not say."""
    info, metrics = evidence.dataset.info, evidence.metrics
    split = info.get("split", {})
    planner = (
        "Planner: fine-tuned on transitions of training users alone; its checkpoint was chosen on validation users; "
        "these figures are of test users, whom it never saw."
        if metrics.get("planner.present")
        else "There is no language model here (ids alone): the table comes from pair frequencies with back-off."
    )
    return [
        f"Split: {split['note']}." if split.get("note") else "Split: one cut between past and future.",
        "Everything learned (clusters, transitions, planner, table, ranker, rivals) comes from before the cut. A "
        "user's history at test also holds what they consumed since, up to the very moment: serving would know it too.",
        planner,
        "Novel means never consumed before, liked or not. Chance is min(1, k / clusters new to the user), averaged.",
        f"Meaning of the data: engagement is {info.get('engagement', {}).get('engagement', 'as given')}; positive is "
        f"{info.get('engagement', {}).get('positive', 'as given')}.",
        "Rivals learn from the same transitions with the same contexts withheld, and are tuned on validation users by "
        "MRR. The ranker as a rival sees more than the planner: everybody's past and the whole history.",
        "Ten answers of the planner are exact; MRR below them rests on upper bounds of the log-probability.",
        "End to end, how many clusters share a slate of ten is chosen for each method on validation users.",
        "Intervals resample users, not events.",
        "These figures belong to the evaluated fit, learned from before the cut. A published release is fitted again "
        "on all data, after the gates; no held-out figure of that second fit exists.",
    ]
