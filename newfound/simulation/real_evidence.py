"""Evidence from real data: random exposure on coats, dense replay on films, off-policy estimates on a shop's log."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.off_policy import Estimate, ips, snips
from newfound.simulation.arms import Arm, Knowledge
from newfound.simulation.experiment import MAKERS, Lift
from newfound.simulation.joint_arm import FOLD, choice_table, fit_choice_model
from newfound.simulation.journal import Journal
from newfound.simulation.language import fit_language_planner, whitened
from newfound.simulation.replay import Ratings, Replayed, replay, shelf
from newfound.types import Array, Doubles, Floats

ARMS = (
    "ranker_direct",
    "random_novel",
    "popular_novel",
    "pair_frequency",
    "nearest",
    "cluster_sequence",
    "newfound_by_choices",
    "newfound_without_planner",
    "newfound_teacher",
    "newfound",
)
"""Arms without bandits, which have nothing to learn from where nobody answers."""

Reader = Callable[[Sequence[str]], Floats]
"""Descriptions -> a language model's states, [C, dim]."""


def coat(folder: Path, seed: int) -> Ratings:
    """Self-selected ratings as history, in a seeded order since there is none; those of random coats answer.

    Args:
        folder: with `items.csv`, `self_selected.csv` and `random.csv`.
        seed: of the order.
    """
    items = _rows(folder / "items.csv")
    kinds = [" ".join(item["categories"].split("|")[:2]) for item in items]
    place, cluster_of, exists, names = shelf(kinds)
    at = {item["item_id"]: int(place[row]) for row, item in enumerate(items)}
    known, rated = _rows(folder / "self_selected.csv"), _rows(folder / "random.csv")
    order = np.random.default_rng(seed).permutation(len(known))
    history = (
        np.array([int(known[row]["user_id"]) for row in order]),
        np.array([at[known[row]["item_id"]] for row in order]),
        np.array([float(known[row]["rating"]) for row in order]),
    )
    answers = np.full((int(history[0].max()) + 1, len(cluster_of)), np.nan)
    for row in rated:
        answers[int(row["user_id"]), at[row["item_id"]]] = float(row["rating"])
    return Ratings(history, answers, cluster_of, exists, [f"coats, {name}" for name in names])


def dense_films(interactions: Path, items: Path, people: int = 200, films: int = 100) -> Ratings:
    """The most active people and the most rated films of MovieLens-100K, with a film's rarest genre as its interest.

    Args:
        interactions: `ml-100k.inter`.
        items: `ml-100k.item`.
    """
    rows = [line.split("\t") for line in interactions.read_text(encoding="utf-8").splitlines()[1:]]
    rows.sort(key=lambda row: float(row[3]))
    users, which, _ = (np.array([row[column] for row in rows]) for column in (0, 1, 2))
    best_users = _most(users, people)
    best_films = _most(which[np.isin(users, best_users)], films)
    genres = {
        line.split("\t")[0]: line.split("\t")[3].split() for line in items.read_text(encoding="utf-8").splitlines()[1:]
    }
    counts: dict[str, int] = {}
    for film in best_films:
        for genre in genres[film]:
            counts[genre] = counts.get(genre, 0) + 1
    common = {genre for genre, count in counts.items() if count >= 5}
    kinds = [
        min(set(genres[film]) & common or {"Drama"}, key=lambda genre: (counts[genre], genre)) for film in best_films
    ]
    place, cluster_of, exists, names = shelf(kinds)
    at = {film: int(place[row]) for row, film in enumerate(best_films)}
    who = {user: row for row, user in enumerate(best_users)}
    cells = [(who[row[0]], at[row[1]], float(row[2])) for row in rows if row[0] in who and row[1] in at]
    history = tuple(np.array(column) for column in zip(*cells, strict=True))
    answers = np.full((people, len(cluster_of)), np.nan)
    answers[history[0], history[1]] = history[2]
    return Ratings((history[0], history[1], history[2]), answers, cluster_of, exists, [f"films, {n}" for n in names])


def _most(values: Array, count: int) -> list[str]:
    names, times = np.unique(values, return_counts=True)
    found: list[str] = names[np.argsort(-times, kind="stable")[:count]].tolist()
    return found


def knower(ratings: Ratings, states: Floats, seed: int) -> Callable[[Journal], Knowledge]:
    """Makes what arms may know from the people to learn from."""
    vectors = whitened(states)

    def know(journal: Journal) -> Knowledge:
        learners = np.arange(journal.people) % FOLD != 0
        teacher = choice_table(fit_choice_model(journal, journal.choices(), learners, vectors, seed))
        language = fit_language_planner(journal, states, learners, seed)
        return Knowledge(vectors, np.zeros(len(vectors), dtype=np.int64), language, teacher)

    return know


def lifts_of(found: Replayed, over: str = "ranker_direct") -> dict[tuple[str, str], tuple[float, Lift]]:
    """By arm and measure: its mean, and its lift over another arm with an interval over people."""
    out = {}
    for measure, by_arm in (("liked", found.liked), ("rating", found.rating)):
        base = by_arm[over]
        for arm, values in by_arm.items():
            both = np.isfinite(values) & np.isfinite(base)
            boot = Bootstrap(np.flatnonzero(both), resamples=1000, confidence=0.95, seed=1)
            lift = boot.difference(values[both], base[both])
            out[arm, measure] = float(values[both].mean()), Lift(lift.value, lift.lower, lift.upper)
    return out


def random_exposure(
    folder: Path, read: Reader, seeds: Sequence[int], arms: Sequence[str] = ARMS
) -> dict[tuple[str, str], tuple[float, Lift]]:
    """P(liked | first choice among new interests) and its rating, on coats that were shown at random."""
    parts = []
    for seed in seeds:
        ratings = coat(folder, seed)
        know = knower(ratings, read(ratings.descriptions), seed)
        parts.append(replay(ratings, _makers(arms), know, rounds=1, hide=0.0, seeds=[seed]))
    return lifts_of(_mean(parts))


def dense_replay(
    interactions: Path, items: Path, read: Reader, seeds: Sequence[int], arms: Sequence[str] = ARMS, rounds: int = 5
) -> dict[tuple[str, str], tuple[float, Lift]]:
    """Likes a round among hidden interests of a block of films that nearly everybody rated."""
    ratings = dense_films(interactions, items)
    know = knower(ratings, read(ratings.descriptions), 0)
    return lifts_of(replay(ratings, _makers(arms), know, rounds=rounds, hide=0.5, seeds=seeds))


def _makers(arms: Sequence[str]) -> Mapping[str, Callable[[Knowledge], Arm]]:
    return {name: MAKERS[name] for name in arms}


def _mean(parts: Sequence[Replayed]) -> Replayed:
    def mean(measure: str, arm: str) -> Doubles:
        found: Doubles = np.nanmean(np.stack([getattr(part, measure)[arm] for part in parts]), axis=0)
        return found

    names = parts[0].liked
    return Replayed({arm: mean("liked", arm) for arm in names}, {arm: mean("rating", arm) for arm in names})


def off_policy(folder: Path, campaign: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Clicks a view of each policy: estimated from the other's log, and its own mean, each with its standard error.

    Uniform random choice has probability one over the items. Thompson sampling's at an item and position is the mean
    of what its own log states there, which leaves out how it changed in the course of time.

    Args:
        folder: with the logs.
        campaign: "men" or "women".
    """
    logs = {name: _rows(folder / f"{name}_{campaign}.csv") for name in ("random", "bts")}
    stated: dict[tuple[str, str], list[float]] = {}
    for row in logs["bts"]:
        stated.setdefault((row["item_id"], row["position"]), []).append(float(row["propensity_score"]))
    uniform = float(logs["random"][0]["propensity_score"])
    found = {}
    for target, log in (("random", "bts"), ("bts", "random")):
        rows = logs[log]
        rewards = np.array([float(row["click"]) for row in rows])
        own = np.array([float(row["propensity_score"]) for row in rows])
        keys = [(row["item_id"], row["position"]) for row in rows]
        chance = [uniform if target == "random" else float(np.mean(stated.get(key, [0.0]))) for key in keys]
        aimed = np.array(chance)
        truth = np.array([float(row["click"]) for row in logs[target]])
        found[target] = {
            "own_mean": (float(truth.mean()), float(truth.std() / np.sqrt(len(truth)))),
            "ips": _pair(ips(rewards, aimed, own)),
            "snips": _pair(snips(rewards, aimed, own)),
            "naive": (float(rewards.mean()), float(rewards.std() / np.sqrt(len(rewards)))),
        }
    return found


def _pair(estimate: Estimate) -> tuple[float, float]:
    return estimate.value, estimate.standard_error


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
