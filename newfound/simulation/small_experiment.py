"""The small experiment of every release: its own planner and pair frequency choose for the run's own people.

Everybody stands at the cut. Round by round an arm chooses an interest that is new to the person; what is liked joins
the history that the arm reads, and makes its next contexts, as in the closed loop. What the person did after the cut
answers. The claim has two halves, and so has the experiment:

    found: of all new interests; found is one that the person came to like
    liked: of those that the person met after the cut; liked is one whose first event there was positive

The first is what the planner is for, and what an older system showed often is an advantage in it. In the second the
exposure is given. Where a data set tells likes alone, a meeting says nothing and the second half is left out.

Nothing that lies after the cut was learned from, whoever did it, so all groups of users take part.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import EvaluationConfig, PolicyConfig
from newfound.evaluation.baselines import pair_frequency_baseline
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.methods import put
from newfound.evaluation.moments import Events, Journeys, novel_events, read_journeys
from newfound.files import new_folder, write_json
from newfound.recommend.cluster_terms import Answers, planner_term
from newfound.recommend.policy import Past, context_distribution, interests
from newfound.table import TransitionTable
from newfound.transitions.artifact import Transitions
from newfound.transitions.frequency_model import Backoff, FrequencyModel
from newfound.types import Array, Bools, Context, Doubles, Floats, Ints, Reals

log: Final = logging.getLogger("newfound.simulation.small_experiment")

RECORD: Final = "experiment.json"
ROUNDS: Final = 5
TELLING: Final = 0.02
"""Share of first meetings that has to be disliked for a meeting to tell anything."""


class PairFrequency:
    """Pair frequency's log-probabilities, asked as the table is.

    Args:
        model: of the transitions.
        order: interface clusters, by index.
    """

    def __init__(self, model: FrequencyModel, order: Sequence[str]) -> None:
        self._model, self._index = model, {cluster: at for at, cluster in enumerate(order)}

    def log_probs(self, contexts: Sequence[Context]) -> Floats:
        """[P, N] of all clusters; minus infinity for a context's own."""
        places = np.array([[self._index[cluster] for cluster in context] for context in contexts], dtype=np.int64)
        with np.errstate(divide="ignore"):
            found: Floats = np.log(self._model.distribution(places))
        return found


@dataclass(frozen=True)
class People:
    """People at the cut: all [U], each with interests enough for a context and something new ahead.

    Attributes:
        users: their ids.
        pasts: their histories.
        new: [U, N], interests that they have never consumed.
        met: [U, N], of those the ones that they consumed after the cut.
        liked: [U, N], of those the ones whose first event was positive.
        engagements: [U, N], of that event.
    """

    users: Array
    pasts: Sequence[Past]
    new: Bools
    met: Bools
    liked: Bools
    engagements: Doubles


def people_of(journeys: Journeys, policy: PolicyConfig, size: int) -> People:
    """Everybody at the cut who has liked at least `size` interests and meets a new one afterwards."""
    first, past = journeys.first_seen, journeys.past[:, None]
    new = first >= past
    met = new & (first < np.iinfo(np.int64).max)
    rows, clusters = np.nonzero(met)
    events = journeys.offsets[rows] + first[rows, clusters]
    liked, engagements = np.zeros(met.shape, dtype=bool), np.zeros(met.shape)
    liked[rows, clusters], engagements[rows, clusters] = journeys.positives[events], journeys.engagements[events]
    pasts = {
        row: journeys.past_before(int(journeys.offsets[row] + journeys.past[row]))
        for row in np.flatnonzero(met.any(axis=1)).tolist()
    }
    kept = np.array([row for row, one in pasts.items() if len(interests(one, policy)) >= size], dtype=np.int64)
    users, own = np.array(journeys.users)[kept], [pasts[row] for row in kept.tolist()]
    return People(users, own, new[kept], met[kept], liked[kept], engagements[kept])


def rounds_of(offered: Bools) -> Ints:
    """[U], choices of each person: half of what is offered, so that each of them is one, `ROUNDS` at most.

    >>> rounds_of(np.ones((1, 7), dtype=bool))
    array([3])
    """
    rounds: Ints = np.minimum(offered.sum(axis=1) // 2, ROUNDS)
    return rounds


def choose(
    people: People, offered: Bools, answers: Answers, order: Sequence[str], policy: PolicyConfig, size: int
) -> Bools:
    """Lets an arm choose for everybody.

    Args:
        people: at the cut.
        offered: [U, N], interests that may be chosen.
        answers: the arm's, of which all contexts of the recent interests are pooled as in serving.
        order: interface clusters, by index.
        policy: which contexts somebody's interests make.
        size: interests in a context.

    Returns:
        Whether each choice is of an interest that the person came to like, person after person, `rounds_of` each.
    """
    hits = []
    for row, rounds in enumerate(rounds_of(offered).tolist()):
        past, left = people.pasts[row], offered[row].copy()
        for _ in range(rounds):
            pairs = [one for one in context_distribution(interests(past, policy), size) if one[1] > 0]
            said = planner_term(answers.log_probs([pair for pair, _ in pairs]), [weight for _, weight in pairs], left)
            # Without a word on any of the contexts the first interest is as good as another.
            best = int(np.where(left, 0.0 if said is None else said, -np.inf).argmax())
            left[best] = False
            hits.append(bool(people.liked[row, best]))
            if hits[-1]:
                past = _with(past, order[best], float(people.engagements[row, best]))
    return np.array(hits, dtype=bool)


def _with(past: Past, cluster: str, engagement: float) -> Past:
    return Past(
        [*past.clusters, cluster], [*past.engagements, engagement], [*past.positives, True], past.seen | {cluster}
    )


def run_experiment(
    dataset: Path,
    clusters: Path,
    transitions: Path,
    table: Path,
    out: Path,
    *,
    size: int,
    policy: PolicyConfig,
    limits: EvaluationConfig,
    seed: int,
) -> dict[str, float]:
    """Runs the experiment and writes its record, which `evaluate` reads.

    Args:
        dataset: the data set, whose events after the cut answer.
        clusters: the clusters' folder.
        transitions: the transitions' folder.
        table: the table's folder; one of pair frequencies is no planner, and nothing is compared.
        out: the folder to write `experiment.json` to.
        size: interests in a context.
        policy: as served.
        limits: users, resamples and confidence.
        seed: of the choice of users and of the resamples.

    Returns:
        By half of the claim and arm the share of choices that hit, with intervals over people; the planner's minus
        pair frequency's; choices and people behind them.
    """
    began = time.perf_counter()
    interest = Clusters.load(clusters)
    planner = TransitionTable.load(table, interest)
    found: dict[str, float] = {}
    if planner.source == "planner":
        mined = Transitions.load(transitions, interest)
        validation = novel_events(read_journeys(dataset, interest, ["validation"], limits.users_at_most, seed), size)
        arms: dict[str, Answers] = {
            "planner": planner,
            "pair_frequency": _pair_frequency(mined, validation, interest.interface),
        }
        people = people_of(read_journeys(dataset, interest, schema.GROUPS, limits.experiment_users, seed), policy, size)
        offers = {"found": people.new}
        if people.met.any() and (people.met & ~people.liked).sum() >= TELLING * people.met.sum():
            offers["liked"] = people.met
        for half, offered in offers.items():
            hits = {name: choose(people, offered, arm, interest.interface, policy, size) for name, arm in arms.items()}
            found |= _figures(half, people, offered, hits, limits, seed)
    log.info("small experiment: %.1f s", time.perf_counter() - began)
    with new_folder(out, RECORD) as folder:
        write_json(folder / RECORD, found)
    return found


def _pair_frequency(mined: Transitions, validation: Events, order: Sequence[str]) -> PairFrequency:
    counts = mined.counts()
    backoff = Backoff(**pair_frequency_baseline(counts, validation).chosen)
    return PairFrequency(FrequencyModel(counts.contexts, counts.labels, counts.n, backoff=backoff), order)


def _figures(
    half: str, people: People, offered: Bools, hits: dict[str, Bools], limits: EvaluationConfig, seed: int
) -> dict[str, float]:
    rounds = rounds_of(offered)
    users = np.repeat(people.users, rounds)
    boot = Bootstrap(users, resamples=limits.bootstrap, confidence=limits.confidence, seed=seed)
    blind: Reals = (people.liked & offered).sum(axis=1) / np.maximum(offered.sum(axis=1), 1)
    values: dict[str, Reals] = {name: found.astype(np.float64) for name, found in hits.items()}
    found: dict[str, float] = {}
    for name, value in {**values, "chance": np.repeat(blind, rounds)}.items():
        put(found, f"{name}.{half}", boot.mean(value))
    put(found, f"planner.minus.pair_frequency.{half}", boot.difference(values["planner"], values["pair_frequency"]))
    return found | {f"choices.{half}": float(len(users)), f"people.{half}": float(len(np.unique(users)))}
