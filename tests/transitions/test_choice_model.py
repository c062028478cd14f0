"""The choice model: what people choose among what is new to them, told from kinship where choices are few."""

from __future__ import annotations

import numpy as np
import pytest

from newfound.transitions.choice_model import Choices, fit_choices, kinship_of

N = 30


def simulate(count: int, kinship: np.ndarray, seed: int) -> Choices:
    """People whose next interest follows the first kinship to their last interest."""
    rng = np.random.default_rng(seed)
    contexts = np.array([rng.choice(N, 2, replace=False) for _ in range(count)])
    known = rng.random((count, N)) < 0.3
    np.put_along_axis(known, contexts, True, axis=1)
    utility = np.where(known, -np.inf, 2.0 * kinship[0][contexts[:, 1]])
    labels = (utility + rng.gumbel(size=utility.shape)).argmax(axis=1)
    return Choices(contexts, labels, known, kinship)


@pytest.fixture(scope="module")
def kinship() -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, 4)).astype(np.float32)
    return kinship_of(vectors, rng.random((200, N)) < 0.2)


def hit_rate(choices: Choices, seen: Choices) -> float:
    scores = np.where(seen.known, -np.inf, fit_choices(choices, 6.0, 20, 0).scores(seen.contexts))
    return float((scores.argmax(axis=1) == seen.labels).mean())


def test_kinship_carries_what_few_choices_cannot_tell(kinship: np.ndarray) -> None:
    few, later = simulate(400, kinship, 1), simulate(2000, kinship, 2)
    blind = Choices(few.contexts, few.labels, few.known)
    assert hit_rate(few, later) > 1.25 * hit_rate(blind, later)


def test_people_who_like_both_bring_two_interests_together() -> None:
    liked = np.zeros((40, 4), dtype=bool)
    liked[:20, :2] = True
    liked[20:, 2:] = True
    alike, together = kinship_of(np.eye(4, dtype=np.float32), liked)
    assert together[0, 1] > together[0, 2] and together[2, 3] > together[1, 2]
    np.testing.assert_allclose(together, together.T)
    np.testing.assert_allclose([alike.std(), together.std()], 1, rtol=1e-5)


def test_clusters_without_vectors_are_no_kin() -> None:
    alike, together = kinship_of(np.zeros((5, 3), dtype=np.float32), np.zeros((0, 5), dtype=bool))
    assert not alike.any() and not together.any()


def test_a_distribution_leaves_the_context_out(kinship: np.ndarray) -> None:
    few = simulate(200, kinship, 3)
    found = fit_choices(few, 6.0, 2, 0).distribution(few.contexts)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert not np.take_along_axis(found, few.contexts, axis=1).any()
