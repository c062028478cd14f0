"""newfound's arm: planner and ranker decide together, by the nested logit that serving uses.

The coefficients are fitted anew each time the log is learned from, on people whom ranker and choice model have not
seen: with `recommend.looks_fit` to what they liked of the new interests that they looked at, or, as the main job does
where a log holds no looks, with `recommend.fit` to what they chose. Slots are drawn by the race of serving: a softmax
without replacement over the interests' best items, with a small uniform share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np

from newfound.recommend.fit import Moments, fit_nested_logit
from newfound.recommend.looks_fit import fit_looks
from newfound.recommend.nested_logit import Coefficients
from newfound.simulation.arms import Knowledge, Offer, best_of_each, pool_pairs
from newfound.simulation.journal import HALF_LIFE, RECENT, Choice, Impressions, Journal
from newfound.simulation.linear_ranker import DECAY, LinearRanker, fit_linear_ranker
from newfound.transitions.choice_model import ChoiceModel, Choices, fit_choices, kinship_of
from newfound.types import Bools, Doubles, Floats, Ints

FOLD: Final = 3  # one in so many people is kept for the coefficients
MOMENTS: Final = 500
LOOKS: Final = 4000
TIES: Final = 10.0  # ridge of the interests' ties, in people
SHRUNK: Final = 10.0  # imagined looks behind an item's approval
TEMPERATURE: Final = 0.05
EXPLORATION: Final = 0.02
ITEMS: Final = ("ranker", "popularity", "approval")
CLUSTERS: Final = ("planner", "choice", "demand", "text", "affinity")


class JointDecision:
    """The joint decision as an arm.

    Args:
        knowledge: of the world.
        planner: log-probabilities [C, C, C] in the planner's place; None: the decision without a planner.
        learn_from: `looks` at new interests, liked or not, or `choices` alone.
        temperature: of the race.
        exploration: share of a slot's choice that is uniform.
    """

    explores = True

    def __init__(
        self,
        knowledge: Knowledge,
        planner: Floats | None,
        learn_from: Literal["looks", "choices"] = "looks",
        temperature: float = TEMPERATURE,
        exploration: float = EXPLORATION,
    ) -> None:
        self._vectors, self._planner, self.learn_from = knowledge.vectors, planner, learn_from
        centred = knowledge.vectors - knowledge.vectors.mean(axis=0)
        self._unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        self.temperature, self.exploration = temperature, exploration
        self.coefficients = Coefficients()
        self.intervals: Mapping[str, tuple[float, float]] = {}
        self._pull: Floats = np.zeros(0, dtype=np.float32)
        self._demand: Floats = np.zeros(0, dtype=np.float32)
        self._counts: dict[str, Floats] = {}

    # --- learning ---------------------------------------------------------------------------------------------------

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        """Fits the choice model and the coefficients."""
        kept = np.arange(journal.people) % FOLD == 0
        choices = journal.choices()
        model = fit_choice_model(journal, choices, ~kept, self._vectors, seed)
        self._pull = choice_table(model)
        counts = np.log1p(np.bincount(journal.cluster_of[choices.items], minlength=journal.clusters))
        self._demand = (counts - counts.mean()).astype(np.float32)
        self._counts = {"popularity": ranker.popularity, "approval": journal.approval}
        others = fit_linear_ranker(np.where(kept[:, None], 0.0, np.minimum(journal.ever, 1)))
        names = [name for name in CLUSTERS if name != "planner" or self._planner is not None]
        if self.learn_from == "looks":
            weights = fit_looks(*self._looks(journal, kept, others))
            of_items, of_clusters = ({name: weights[name] for name in group} for group in (ITEMS, names))
            self.coefficients = Coefficients(items=of_items, clusters=of_clusters)
            return
        moments = self._moments(journal, choices, kept, others)
        found = fit_nested_logit(lambda: [moments], _bounds(journal), ITEMS, names)
        self.coefficients, self.intervals = found.coefficients, found.intervals

    def _looks(self, journal: Journal, kept: Bools, ranker: LinearRanker) -> tuple[dict[str, Floats], Bools]:
        """Terms [B] of the latest looks of the kept people at new interests, and whether they liked what they saw."""
        seen = journal.impressions()
        seen = seen.take(np.flatnonzero(kept[seen.users] & (seen.recent[:, 1] >= 0))[-LOOKS:])
        at, clusters = np.arange(len(seen.users)), journal.cluster_of[seen.items]
        # An item's approval holds the look itself, which must not tell what came of it.
        looks, likes = journal.tries[0][seen.items] - 1, journal.tries[1][seen.items] - seen.liked
        usual = journal.tries[1].sum() / max(journal.tries[0].sum(), 1.0)
        share = np.clip((likes + SHRUNK * usual) / (looks + SHRUNK), 0.01, 0.99)
        profiles = _profiles_before(journal, seen, at)
        scores = ranker.scores(profiles)[at, seen.items]
        terms = {"ranker": scores, "popularity": ranker.popularity[seen.items], "approval": np.log(share / (1 - share))}
        found = self._cluster_terms(seen.recent, ~seen.known, affinity(journal, profiles, ~kept))
        return {**terms, **{name: values[at, clusters] for name, values in found.items()}}, seen.liked

    def _moments(self, journal: Journal, choices: Choice, kept: Bools, ranker: LinearRanker) -> Moments:
        """The latest first choices of the kept people, with what was known then."""
        rows = np.flatnonzero(kept[choices.users] & (choices.recent[:, 1] >= 0))[-MOMENTS:]
        profiles = _profiles_before(journal, choices, rows)
        allowed = ~choices.known[rows]
        clusters = self._cluster_terms(choices.recent[rows], allowed, affinity(journal, profiles, ~kept))
        items = self._item_terms(ranker.scores(profiles))
        open_ = allowed[:, journal.cluster_of] & journal.exists.reshape(-1)
        return Moments(items, clusters, open_, choices.items[rows], choices.users[rows])

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _cluster_terms(self, recent: Ints, allowed: Bools, affinity: Floats) -> dict[str, Floats]:
        terms = {"choice": pool_pairs(self._pull, recent, allowed)}
        if self._planner is not None:
            terms["planner"] = pool_pairs(self._planner, recent, allowed)
        terms["demand"] = np.where(allowed, self._demand, np.float32(0))
        age = np.where(recent >= 0, 2.0 ** (-np.arange(recent.shape[1]) / HALF_LIFE), 0.0)
        mean = (age[:, :, None] * self._unit[np.maximum(recent, 0)]).sum(axis=1)
        mean /= np.maximum(age.sum(axis=1, keepdims=True), 1e-9)
        terms["affinity"] = np.where(allowed, affinity, np.float32(0))
        terms["text"] = np.where(allowed, mean @ self._unit.T, 0.0).astype(np.float32)
        return terms

    def _item_terms(self, scores: Floats) -> dict[str, Floats]:
        counts = {name: np.broadcast_to(values, scores.shape) for name, values in self._counts.items()}
        return {"ranker": scores, **counts}

    def offer(self, journal: Journal, scores: Floats, allowed: Bools, generator: np.random.Generator) -> Offer:
        """Joint utilities of all items, and a race of the interests."""
        whole = affinity(journal, journal.profile, np.ones(journal.people, dtype=bool))
        terms = self._cluster_terms(journal.recent(np.arange(journal.people), RECENT), allowed, whole)
        joint = joint_of_all(self._item_terms(scores), terms, self.coefficients, journal.exists)
        heads = best_of_each(joint, journal.clusters) / self.temperature
        explores = generator.random((len(joint), 1)) < self.exploration
        race = heads + generator.gumbel(size=heads.shape)
        uniform = generator.random(heads.shape)
        return Offer(joint, np.where(explores, uniform, race).astype(np.float32))


def joint_of_all(
    items: Mapping[str, Floats], clusters: Mapping[str, Floats], coefficients: Coefficients, exists: Bools
) -> Floats:
    """`nested_logit.joint_utilities` for many people at once, [U, n]; nests are of one size.

    Args:
        items: by term, [U, n].
        clusters: by term, [U, C].
        coefficients: of the terms.
        exists: [C, n / C], places that hold an item.
    """
    utilities = np.zeros(next(iter(items.values())).shape)
    for name, weight in coefficients.items.items():
        utilities += weight * items[name]
    nests = np.zeros((len(utilities), len(exists)))
    for name, weight in coefficients.clusters.items():
        nests += weight * clusters[name]
    apart = np.where(exists, utilities.reshape(len(utilities), *exists.shape), -np.inf)
    top = apart.max(axis=2)
    values = top + np.log(np.exp(apart - top[..., None]).sum(axis=2))
    joint = apart + (nests + (coefficients.dissimilarity - 1.0) * values)[..., None]
    found: Floats = joint.reshape(len(utilities), -1).astype(np.float32)
    return found


def affinity(journal: Journal, profiles: Floats, learners: Bools) -> Floats:
    """[B, C], the ties of interests with all that a person liked, each row of mean 0 and spread 1.

    The linear ranker over interests instead of items: few enough that some people's histories tell their ties.

    Args:
        profiles: [B, n], what people liked.
        learners: [U], whose histories the ties are learned from.
    """

    def by_interest(items: Floats) -> Floats:
        found: Floats = np.log1p(items.reshape(len(items), journal.clusters, -1).sum(axis=2))
        return found

    return fit_linear_ranker(by_interest(journal.profile[learners]), penalty=TIES).scores(by_interest(profiles))


def _bounds(journal: Journal) -> Ints:
    return np.arange(journal.clusters + 1) * (journal.n // journal.clusters)


def _profiles_before(journal: Journal, choices: Choice | Impressions, rows: Ints) -> Floats:
    """[B, n], the profiles on the mornings of these choices."""
    users, items, days = journal.events()
    order = np.argsort(users, kind="stable")
    start = np.searchsorted(users[order], np.arange(journal.people + 1))
    found = np.zeros((len(rows), journal.n), dtype=np.float32)
    for at, row in enumerate(rows.tolist()):
        own = order[start[choices.users[row]] : start[choices.users[row] + 1]]
        before = own[days[own] < choices.days[row]]
        np.add.at(found[at], items[before], DECAY ** (choices.days[row] - days[before]))
    return found


def fit_choice_model(journal: Journal, choices: Choice, learners: Bools, vectors: Floats, seed: int) -> ChoiceModel:
    """The project's choice model on first choices of some people.

    Args:
        learners: [U], whose choices count.
        vectors: [C, dim], of the descriptions.
    """
    rows = np.flatnonzero(learners[choices.users] & (choices.recent[:, 1] >= 0))
    contexts = choices.recent[rows][:, [1, 0]]
    kinship = kinship_of(vectors, journal.known[learners])
    labels = journal.cluster_of[choices.items[rows]]
    return fit_choices(Choices(contexts, labels, choices.known[rows], kinship), 6.0, 12, seed)


def choice_table(model: ChoiceModel) -> Floats:
    """The model's log-probabilities for every pair, [C, C, C]: older, newer, next."""
    older, newer = model.pull
    scores: Floats = model.bias + older[:, None, :] + newer[None, :, :]
    return _log_softmax(scores)


def _log_softmax(scores: Floats | Doubles) -> Floats:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    found: Floats = (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)
    return found
