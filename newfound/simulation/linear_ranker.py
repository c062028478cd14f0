"""The ranker of the closed loop: a recency-weighted linear autoencoder, refitted in closed form in milliseconds.

It stands in for the transformer, which would have to be trained hundreds of times. An item's score is the sum of its
ties with what the person liked, the recent more, so it sees order through recency alone. The ties are EASE's (Steck
2019, "Embarrassingly shallow autoencoders for sparse data"): ridge regression of every item on all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from newfound.types import Array, Floats, Ints

DECAY: Final = 0.97  # of an event's weight, a day


@dataclass(frozen=True)
class LinearRanker:
    """Ties between items.

    Attributes:
        ties: [n, n], row: liked item, column: scored one; zero on the diagonal.
        popularity: [n], log of one plus the people who liked the item, centred.
    """

    ties: Floats
    popularity: Floats

    def scores(self, profiles: Floats) -> Floats:
        """Scores of all items, [U, n], each row of mean 0 and spread 1.

        Args:
            profiles: [U, n], weights of what each person liked.
        """
        raw = profiles @ self.ties + 0.02 * self.popularity
        raw -= raw.mean(axis=1, keepdims=True)
        found: Floats = raw / np.maximum(raw.std(axis=1, keepdims=True), 1e-6)
        return found


def fit_linear_ranker(liked: Array, penalty: float = 20.0) -> LinearRanker:
    """Fits the ties.

    Args:
        liked: [U, n], bool or weights.
        penalty: of the ridge, in people.
    """
    x = np.asarray(liked, dtype=np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    ties = -inverse / np.diag(inverse)
    np.fill_diagonal(ties, 0.0)
    count = np.log1p((x > 0).sum(axis=0))
    return LinearRanker(ties.astype(np.float32), (count - count.mean()).astype(np.float32))


def profiles_at(users: Ints, items: Ints, days: Ints, people: int, n: int, today: int, decay: float = DECAY) -> Floats:
    """Weights of what each person liked before today, [people, n]: decay ** age, added up.

    >>> profiles_at(np.array([0]), np.array([1]), np.array([3]), 1, 2, 4, decay=0.5)
    array([[0. , 0.5]], dtype=float32)
    """
    past = days < today
    found = np.zeros((people, n), dtype=np.float32)
    np.add.at(found, (users[past], items[past]), decay ** (today - days[past]))
    return found
