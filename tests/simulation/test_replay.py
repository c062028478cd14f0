"""Replay on real ratings: choices among what was truly rated, learned from other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.simulation.arms import Knowledge, PopularNovel, RandomNovel
from newfound.simulation.language import word_vectors
from newfound.simulation.real_evidence import coat, off_policy
from newfound.simulation.replay import Ratings, consumed, journal_of, replay, shelf

SHARED = Path(__file__).parents[3] / "shared" / "data"


def ratings() -> Ratings:
    """Everybody likes items of interest a and b; c is loved by those who rated it in their history, d by nobody."""
    place, cluster_of, exists, names = shelf(["a", "a", "b", "c", "c", "d"])
    people = 40
    cells = [(user, item) for user in range(people) for item in (0, 1, 2, 3, 5) if item != 3 or user % 2]
    users, items = (np.array(column) for column in zip(*cells, strict=True))
    history = (users, place[items], np.where(items == 5, 1.0, 5.0))
    answers = np.full((people, len(cluster_of)), np.nan)
    answers[:, place[4]] = 5.0
    answers[:, place[5]] = 1.0
    return Ratings(history, answers, cluster_of, exists, names)


def test_only_interests_that_nothing_was_rated_of_are_new() -> None:
    told = ratings()
    hidden = np.zeros((40, 4), dtype=bool)
    hidden[:, 3] = True
    seen = consumed(told, hidden)
    assert seen[0].tolist() == [True, True, False, False] and seen[1].tolist() == [True, True, True, False]


def test_disliked_items_are_no_interest_in_the_journal() -> None:
    journal = journal_of(ratings(), np.arange(40))
    assert not journal.known[:, 3].any() and journal.known[:, 0].all()


def test_popular_interests_of_others_are_chosen_and_answered_by_true_ratings() -> None:
    told = ratings()
    known = Knowledge(word_vectors(told.descriptions), np.zeros(4, dtype=np.int64))
    makers = {"popular": lambda _: PopularNovel(), "random": lambda _: RandomNovel()}
    found = replay(told, makers, lambda _: known, rounds=1, hide=0.0, seeds=[1])
    some = np.isfinite(found.liked["popular"])
    assert some.sum() == 20 and (found.liked["popular"][some] == 1.0).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_coats_and_the_shops_logs_are_read() -> None:
    told = coat(SHARED / "coat", 1)
    assert np.isfinite(told.answers).sum() == 4640 and len(told.history[0]) == 6960
    found = off_policy(SHARED / "obd", "men")["random"]
    assert abs(found["snips"][0] - found["own_mean"][0]) < 4 * np.hypot(found["snips"][1], found["own_mean"][1])
