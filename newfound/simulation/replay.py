"""Evidence without a simulator: arms choose among what people truly rated, in interests that were new to them.

Random exposure: people rated coats drawn at random, so a rating is there whatever any system would have shown. Dense
replay: in a block of films that nearly everybody rated, whole interests of a person are hidden and then chosen from,
round by round. Whatever learns, learns from other people (folds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from newfound.simulation.arms import Arm, Knowledge, best_of_each
from newfound.simulation.journal import Journal
from newfound.simulation.linear_ranker import fit_linear_ranker
from newfound.types import Array, Bools, Doubles, Floats, Ints

LIKED = 4.0  # a rating from which somebody liked it
FOLDS = 5


@dataclass(frozen=True)
class Ratings:
    """Ratings on a shelf whose interests are padded to one size.

    Attributes:
        history: (person, item, rating), in order, what may be known of somebody.
        answers: [U, n], ratings that answer a choice; NaN where there is none.
        cluster_of: [n], interest of each place.
        exists: [n], places that hold an item.
        descriptions: of the interests.
    """

    history: tuple[Ints, Ints, Doubles]
    answers: Doubles
    cluster_of: Ints
    exists: Bools
    descriptions: Sequence[str]


def shelf(names: Sequence[str]) -> tuple[Ints, Ints, Bools, list[str]]:
    """Places for items, the interests padded to one size.

    Args:
        names: each item's interest.

    Returns:
        The place of each item, the interest of each place, which places hold an item, and the interests' names.

    >>> shelf(["b", "a", "b"])[0].tolist()
    [2, 0, 3]
    """
    found = sorted(set(names))
    size = max(sum(name == one for name in names) for one in found)
    filled = dict.fromkeys(found, 0)
    places = []
    for name in names:
        places.append(found.index(name) * size + filled[name])
        filled[name] += 1
    exists = np.zeros(len(found) * size, dtype=bool)
    exists[places] = True
    return np.array(places), np.repeat(np.arange(len(found)), size), exists, found


def journal_of(ratings: Ratings, people: Ints, hidden: Bools | None = None) -> Journal:
    """The journal of some people's histories; who they are follows the order of `people`.

    Args:
        hidden: [U, C], interests of a person that are left out.
    """
    journal = Journal(len(people), ratings.cluster_of, ratings.exists)
    users, items, values = ratings.history
    row = np.full(len(ratings.answers), -1)
    row[people] = np.arange(len(people))
    mine = row[users] >= 0
    if hidden is not None:
        mine &= ~hidden[users, ratings.cluster_of[items]]
    u, i, v = row[users[mine]], items[mine], values[mine]
    order = np.argsort(u, kind="stable")
    turn = np.empty(len(u), dtype=np.int64)
    turn[order] = np.arange(len(u)) - np.searchsorted(u[order], u[order])
    for now in range(int(turn.max(initial=-1)) + 1):
        some = turn == now
        good = v[some] >= LIKED
        journal.new_day()
        journal.add_looks(u[some], i[some], good)
        new = np.flatnonzero(some)[~journal.known[u[some], ratings.cluster_of[i[some]]]]
        journal.add_novel(u[new], i[new], now, v[new] >= LIKED)
        journal.add_liked(u[some][good], i[some][good], now)
    return journal


def consumed(ratings: Ratings, hidden: Bools) -> Bools:
    """[U, C], interests of which somebody rated anything, well or not, without the hidden ones."""
    users, items, _ = ratings.history
    found = np.zeros_like(hidden)
    found[users, ratings.cluster_of[items]] = True
    return found & ~hidden


@dataclass
class Replayed:
    """Rewards of the arms' choices: by arm, [U] means over a person's rounds and orders; NaN without a choice."""

    liked: dict[str, Doubles]
    rating: dict[str, Doubles]


def replay(
    ratings: Ratings,
    makers: Mapping[str, Callable[[Knowledge], Arm]],
    know: Callable[[Journal], Knowledge],
    *,
    rounds: int,
    hide: float,
    seeds: Sequence[int],
) -> Replayed:
    """Lets every arm choose for everybody.

    Args:
        ratings: histories and answers.
        makers: by arm.
        know: makes what arms may know from the journal of the people to learn from.
        rounds: choices for each person.
        hide: share of the interests of a person that are hidden; 0: the history's own.
        seeds: of folds, hidden interests and arms, one after the other.
    """
    total = len(ratings.answers)
    sums = {name: np.zeros((3, total)) for name in makers}
    for seed in seeds:
        generator = np.random.default_rng(seed)
        fold = generator.permutation(total) % FOLDS
        hidden = generator.random((total, len(ratings.descriptions))) < hide
        for part in range(FOLDS):
            learners, people = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
            journal = journal_of(ratings, learners)
            ranker = fit_linear_ranker(journal.ever)
            knowledge = know(journal)
            for name, make in makers.items():
                arm = make(knowledge)
                arm.fit(journal, ranker, seed)
                theirs = journal_of(ratings, people, hidden)
                seen = consumed(ratings, hidden)[people]
                own = np.random.default_rng(seed)
                sums[name][:, people] += _choose(arm, ranker.scores, theirs, ratings, people, seen, rounds, own)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Replayed(
            {name: found[1] / found[0] for name, found in sums.items()},
            {name: found[2] / found[0] for name, found in sums.items()},
        )


def _choose(
    arm: Arm,
    score: Callable[[Floats], Floats],
    journal: Journal,
    ratings: Ratings,
    people: Ints,
    seen: Bools,
    rounds: int,
    generator: np.random.Generator,
) -> Array:
    """Choices, liked ones and the sum of their ratings, [3, people]."""
    answers = ratings.answers[people]
    rows = np.arange(len(people))
    found = np.zeros((3, len(people)))
    for now in range(rounds):
        open_ = np.isfinite(answers) & ~seen[:, ratings.cluster_of] & ~journal.ever
        allowed = best_of_each(open_, journal.clusters).astype(bool)
        offer = arm.offer(journal, score(journal.profile), allowed, generator)
        values = np.where(open_, offer.items, -np.inf)
        if offer.clusters is not None:
            best = np.where(allowed, offer.clusters, -np.inf).argmax(axis=1)
            values = np.where(ratings.cluster_of == best[:, None], values, -np.inf)
        item = values.argmax(axis=1)
        there = np.isfinite(values[rows, item])
        rating = np.where(there, answers[rows, item], 0.0)
        good = there & (rating >= LIKED)
        found += np.stack([there, good, rating])
        seen[rows[there], ratings.cluster_of[item[there]]] = True
        journal.new_day()
        journal.add_liked(rows[good], item[good], 1000 + now)
    return found
