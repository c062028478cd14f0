"""New shelves: a tenth of the interests withheld whole, as if they opened today; who finds their way there?

Nothing of what people did in them is left before the cut: not in histories, transitions, or the vectors of interests,
which are those of texts alone. Their words stay. Judged are the moments after the cut at which test users liked
something there, among the withheld interests that were new to them. Everything is fitted on transitions between the
other interests.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from newfound import measures, schema
from newfound.clusters import Clusters
from newfound.clusters.embed import unit
from newfound.config import TrainingConfig
from newfound.datasets.dataset import RECORD
from newfound.evaluation import moments as protocols
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.methods import put
from newfound.features.histories import ARRAYS
from newfound.planner.training.finetune import finetune_planner
from newfound.table import TransitionTable, build_table
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import Choices, fit_choices
from newfound.transitions.mine import mine_transitions
from newfound.types import Floats, Ints
from tests.benchmarks.folds import measured_parts

SHARE: Final = 0.1
KS: Final = (1, 3, 10)
PENALTY: Final = 1e-3
ITERATIONS: Final = 100

log = logging.getLogger("newfound.bench")


def new_shelves(
    runs: Path, config: TrainingConfig, texts: Mapping[str, Floats], confidence: float = 0.95
) -> dict[str, float]:
    """recall@k of every method with its interval, and of each one's lead over nearest and teacher.

    Args:
        runs: a finished run.
        config: of the run.
        texts: item vectors by what made them, in the order of the interests' items.
    """
    parts, withheld = _withhold(runs, config)
    interests = Clusters.load(parts["clusters"])
    mined = Transitions.load(parts["transitions"], interests)
    choices, tuning = mined.choices(), config.planner.finetune
    journeys = protocols.read_journeys(
        parts["dataset"], interests, ["test"], config.evaluation.users_at_most, config.seed
    )
    events = protocols.novel_events(journeys, config.transitions.context)
    events = events.take(np.flatnonzero(np.isin(events.labels, withheld)))
    places = np.array([[interests.index[c] for c in context] for context in events.contexts], dtype=np.int64)
    teacher = fit_choices(choices, tuning.teacher_penalty, tuning.teacher_epochs, config.seed)
    scores = {
        "planner": TransitionTable.load(parts["table"], interests).log_probs(events.contexts),
        "teacher": teacher.scores(places),
    }
    for name, items in texts.items():
        vectors = cluster_vectors(interests, items)
        scores[name] = vectors[places].mean(axis=1) @ pulled(vectors, choices, withheld)
        if name == "encoder":
            scores["nearest_embedding"] = vectors[places].mean(axis=1) @ vectors.T
    excluded = events.seen | ~np.isin(np.arange(len(interests.interface)), withheld)[None, :]
    boot = Bootstrap(events.users, resamples=1000, confidence=confidence, seed=config.seed)
    hits = {
        (name, k): measures.hits(measures.ranks_of(found, events.labels, excluded), k)
        for name, found in scores.items()
        for k in KS
    }
    record: dict[str, float] = {
        "new_shelves.moments": len(events),
        "new_shelves.users": len(np.unique(events.users)),
        "new_shelves.interests": len(withheld),
    }
    for k in KS:
        record[f"new_shelves.chance.recall@{k}"] = float(np.minimum(1, k / (~excluded).sum(axis=1)).mean())
    for (name, k), values in hits.items():
        put(record, f"new_shelves.{name}.recall@{k}", boot.mean(values))
        for other in ("nearest_embedding", "teacher"):
            if name != other:
                found = boot.difference(values, hits[other, k])
                put(record, f"new_shelves.{name}.minus.{other}.recall@{k}", found)
    return record


def cluster_vectors(clusters: Clusters, items: Floats) -> Floats:
    """[N, dim] of length 1, the centred means of item vectors [n, dim]."""
    spans = [clusters.slice_of(node) for node in clusters.interface]
    means = np.stack([items[start:stop].mean(axis=0) for start, stop in spans])
    return unit(means - means.mean(axis=0))


def pulled(vectors: Floats, choices: Choices, withheld: Ints) -> Floats:
    """[dim, N], where a bilinear form takes every interest: fitted to choices among interests that were not withheld.

    Utility of the next interest c after a context with mean vector x: x A v(c); A maximises the likelihood of the
    choices, with a penalty on how far it is from a multiple of the identity.
    """
    x = torch.from_numpy(vectors[choices.contexts].mean(axis=1))
    v = torch.from_numpy(vectors)
    closed = torch.from_numpy(choices.known.copy())
    closed[:, torch.from_numpy(withheld)] = True
    labels = torch.from_numpy(choices.labels)
    dim = vectors.shape[1]
    scale = torch.ones(1, requires_grad=True)
    form = torch.zeros(dim, dim, requires_grad=True)
    bias = torch.zeros(len(vectors), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scale, form, bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        utility = (x @ (scale * torch.eye(dim) + form) @ v.T + bias).masked_fill(closed, -1e9)
        loss = torch.nn.functional.cross_entropy(utility, labels) + PENALTY * form.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found: Floats = ((scale * torch.eye(dim) + form) @ v.T).detach().numpy()
    return found


def _withhold(runs: Path, config: TrainingConfig) -> tuple[dict[str, Path], Ints]:
    """Folders without what happened in the withheld interests, made where they are not there; and those interests."""
    measured = measured_parts(runs)
    interests = Clusters.load(measured["clusters"])
    n = len(interests.interface)
    drawn = np.random.default_rng(config.seed).choice(n, max(round(SHARE * n), 2), replace=False)
    withheld = np.sort(drawn).astype(np.int64)
    spans = [interests.slice_of(interests.interface[at]) for at in withheld]
    gone = {item for start, stop in spans for item in interests.item_order[start:stop]}
    folder = runs / "new-shelves"
    parts = {name: folder / name for name in ("dataset", "clusters", "transitions", "planner", "table")}
    histories = folder / "histories.parquet"
    folder.mkdir(exist_ok=True)
    if not histories.exists():
        _drop_items(measured["histories"], gone, histories)
    if not (parts["dataset"] / RECORD).exists():
        _drop_past(measured["dataset"], gone, parts["dataset"])
    if not parts["clusters"].exists():
        by_text(interests).save(parts["clusters"])
    fine = config.planner.finetune.model_copy(update={"minutes": 0.0})
    of_words = config.planner.model_copy(update={"finetune": fine})
    arguments = (parts["transitions"], parts["clusters"])
    if not parts["transitions"].exists():
        mine_transitions(histories, parts["dataset"], parts["clusters"], config.transitions, config.seed, arguments[0])
    if not parts["planner"].exists():
        finetune_planner(*arguments, of_words, config.seed, parts["planner"], measured["planner"], config.threads)
    if not parts["table"].exists():
        build_table(parts["planner"], parts["clusters"], parts["transitions"], config.table, parts["table"])
    return parts, withheld


def by_text(clusters: Clusters) -> Clusters:
    """The same interests, whose vectors are means of their items' texts alone."""
    text = clusters.vectors["text"]
    spans = [clusters.slice_of(node) for node in clusters.nodes]
    nodes = np.stack([text[start:stop].mean(axis=0) for start, stop in spans])
    vectors = {**clusters.vectors, "nodes": np.ascontiguousarray(nodes), "items": text}
    return Clusters(clusters.tree, clusters.items, clusters.info, vectors, clusters.layout)


def _drop_items(source: Path, gone: set[str], out: Path) -> None:
    frame = pq.read_table(source).to_pandas()
    keep = [[item not in gone for item in items] for items in frame[schema.ITEM_IDS]]
    for name in ARRAYS:
        frame[name] = [np.asarray(values)[mask] for values, mask in zip(frame[name], keep, strict=True)]
    pq.write_table(pa.Table.from_pandas(frame, schema=pq.read_schema(source), preserve_index=False), out)


def _drop_past(source: Path, gone: set[str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(source / "interactions.parquet")
    cuts = pq.read_table(source / "users.parquet").to_pandas().set_index(schema.USER)[schema.CUT]
    frame = table.select([schema.USER, schema.ITEM, schema.TIME]).to_pandas()
    past = frame[schema.TIME] < frame[schema.USER].map(cuts)
    keep = ~(past & frame[schema.ITEM].isin(gone))
    pq.write_table(table.filter(pa.array(keep.to_numpy())), out / "interactions.parquet")
    for name in ("users.parquet", "items.parquet", RECORD):
        (out / name).unlink(missing_ok=True)
        os.link((source / name).resolve(), out / name)
