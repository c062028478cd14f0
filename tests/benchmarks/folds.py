"""Folds of the users of a finished run: planner, teacher, table and decision anew for each.

Interests, ranker and the states of contexts stay: they know nothing of what lies after the cut. A fold's test users are
the next quarter of the users by lot; all users together are test users once.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound import measures, schema
from newfound.clusters import Clusters
from newfound.config import TrainingConfig
from newfound.datasets.dataset import RECORD
from newfound.evaluation.baselines import teacher_baseline
from newfound.evaluation.decision_fit import fit_decision
from newfound.evaluation.offline import gather_moments
from newfound.evaluation.served import direct_slates, open_recommender, served_slates
from newfound.planner.training.finetune import finetune_planner
from newfound.ranker import Ranker
from newfound.table import TransitionTable, build_table
from newfound.transitions.artifact import Transitions
from newfound.transitions.mine import mine_transitions
from newfound.types import Doubles, Ints

MADE: Final = ("transitions", "planner", "table", "decision")
KEPT: Final = ("histories", "clusters", "ranker")

log = logging.getLogger("newfound.bench")


def fold_parts(runs: Path, config: TrainingConfig, fold: int) -> dict[str, Path]:
    """Folders of a fold, made where they are not there yet. Fold 0 is the run itself.

    Args:
        runs: the run's folder.
        config: of the run.
        fold: which quarter of the users are its test users.
    """
    parts = measured_parts(runs)
    if fold == 0:
        return parts
    folder = runs / "folds" / str(fold)
    folder.mkdir(parents=True, exist_ok=True)
    measured = parts["planner"]
    parts |= {name: folder / name for name in ("dataset", *MADE)}
    if not (parts["dataset"] / RECORD).exists():
        _move_groups(runs / "dataset", parts["dataset"], config, fold)
    histories, clusters = parts["histories"], parts["clusters"]
    of_words = config.planner.model_copy(
        update={"finetune": config.planner.finetune.model_copy(update={"minutes": 0.0})}
    )
    if not parts["transitions"].exists():
        mine_transitions(histories, parts["dataset"], clusters, config.transitions, config.seed, parts["transitions"])
    if not parts["planner"].exists():
        finetune_planner(
            parts["transitions"], clusters, of_words, config.seed, parts["planner"], measured, config.threads
        )
    if not parts["table"].exists():
        build_table(parts["planner"], clusters, parts["transitions"], config.table, parts["table"])
    if not parts["decision"].exists():
        inputs = (parts[name] for name in ("dataset", "histories", "clusters", "transitions", "table", "ranker"))
        fit_decision(*inputs, config, parts["decision"])
    return parts


def measured_parts(runs: Path) -> dict[str, Path]:
    """Folders of the fit that was measured: what the fit on all data made again has other names."""
    found = {name: runs / name for name in ("dataset", *KEPT, *MADE)}
    before = {name: folder.with_name(f"{name}-evaluated") for name, folder in found.items()}
    return {name: before[name] if before[name].exists() else folder for name, folder in found.items()}


def _move_groups(source: Path, out: Path, config: TrainingConfig, fold: int) -> None:
    """The same data set with other groups: everybody's lot is moved by a whole number of test shares."""
    out.mkdir(parents=True, exist_ok=True)
    users = pq.read_table(source / "users.parquet")
    if [_group(name, config, 0) for name in users[schema.USER].to_pylist()] != users[schema.GROUP].to_pylist():
        raise ValueError(f"{source}: other groups than the split's lots say; see newfound/datasets/split.py")
    moved = [_group(name, config, fold) for name in users[schema.USER].to_pylist()]
    at = users.schema.get_field_index(schema.GROUP)
    moved_users = users.set_column(at, users.schema.field(at), pa.array(moved, users.schema.field(at).type))
    pq.write_table(moved_users, out / "users.parquet")
    for name in ("interactions.parquet", "items.parquet", RECORD):
        (out / name).unlink(missing_ok=True)
        os.link((source / name).resolve(), out / name)


def _group(user: str, config: TrainingConfig, fold: int) -> str:
    """The split's own lot, moved."""
    lot = int(hashlib.sha256(f"{config.seed}:{user}".encode()).hexdigest()[:12], 16) / 16**12
    lot = (lot - fold * config.split.test_users) % 1.0
    if lot < config.split.test_users:
        return "test"
    return "validation" if lot < config.split.test_users + config.split.validation_users else "train"


@dataclass(frozen=True)
class Outcomes:
    """What was shown and said at the test moments of a fold.

    Attributes:
        users: [B], whose moment it was.
        served_hits, served_gains: [B], of slates as served, a mean over draws.
        direct_hits, direct_gains: [B], of the ranker with a filter.
        planner, teacher: [B], 1 where the right interest is among the first ten.
        served_shown, direct_shown: [N], in how many slates each interest was.
    """

    users: np.ndarray[tuple[int], np.dtype[np.str_]]
    served_hits: Doubles
    served_gains: Doubles
    direct_hits: Doubles
    direct_gains: Doubles
    planner: Doubles
    teacher: Doubles
    served_shown: Ints
    direct_shown: Ints


def outcomes(parts: dict[str, Path], config: TrainingConfig, file: Path) -> Outcomes:
    """Shows and asks, or reads what an earlier call kept in `file`."""
    if not file.exists():
        found = _outcomes(parts, config)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **vars(found))
    with np.load(file) as kept:
        return Outcomes(**kept)


def _outcomes(parts: dict[str, Path], config: TrainingConfig) -> Outcomes:
    interests, ranker = Clusters.load(parts["clusters"]), Ranker.load(parts["ranker"])
    moments = gather_moments(parts["dataset"], interests, config)
    test = moments.test
    inputs = (parts[name] for name in ("dataset", "clusters", "table", "ranker", "decision"))
    served = served_slates(open_recommender(*inputs, config.policy), test)
    direct = direct_slates(ranker, test)
    choices = Transitions.load(parts["transitions"], interests).choices()
    teacher = teacher_baseline(choices, moments.validation, config.seed, config.planner.finetune.teacher_epochs).scorer
    table = TransitionTable.load(parts["table"], interests)
    ranks = [
        measures.ranks_of(scores, test.labels, test.seen)
        for scores in (table.log_probs(test.contexts), teacher.scores(test))
    ]
    log.info("%d moments: hits %.4f, with a filter %.4f", len(test), served.hits.mean(), direct.hits.mean())
    return Outcomes(
        users=np.asarray(test.users).astype(str),
        served_hits=served.hits,
        served_gains=served.gains,
        direct_hits=direct.hits,
        direct_gains=direct.gains,
        planner=measures.hits(ranks[0], 10).astype(np.float64),
        teacher=measures.hits(ranks[1], 10).astype(np.float64),
        served_shown=served.clusters,
        direct_shown=direct.clusters,
    )
