"""Arms with a model of their own: a sequence model over interests and two bandits."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from newfound.simulation.arms import ClusterArm, Knowledge
from newfound.simulation.journal import Journal
from newfound.simulation.linear_ranker import LinearRanker
from newfound.types import Bools, Doubles, Floats, Ints

RANK: Final = 8


class ClusterSequence(ClusterArm):
    """A recurrent network over newly liked interests (GRU4Rec, arXiv 1511.06939), trained on what came next.

    Args:
        epochs: at each fit; it goes on from where it was.
        width: of the state.
        length: interests of a walk, the last ones.
    """

    def __init__(self, epochs: int = 16, width: int = 32, length: int = 16) -> None:
        self.epochs, self.width, self.length = epochs, width, length
        self._net: _Recurrent | None = None

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        torch.manual_seed(seed)
        if self._net is None:
            self._net = _Recurrent(journal.clusters, self.width)
        walks = self._walks(journal)
        inputs, targets = walks[:, :-1], walks[:, 1:]
        optimizer = torch.optim.Adam(self._net.parameters(), lr=0.01, weight_decay=1e-4)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(walks)), 128):
                logits = self._net(inputs[rows])
                seen = nn.functional.one_hot(inputs[rows], journal.clusters + 1).cumsum(1)[..., 1:] > 0
                logits = logits.masked_fill(seen, -1e9)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[rows].flatten() - 1, ignore_index=-1)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _walks(self, journal: Journal) -> Tensor:
        """[U, length], interests in the order in which they were first liked, plus one; 0 before the first."""
        choices = journal.choices()
        walks = np.zeros((journal.people, self.length), dtype=np.int64)
        for user, item in zip(choices.users.tolist(), choices.items.tolist(), strict=True):
            walks[user, :-1] = walks[user, 1:]
            walks[user, -1] = journal.cluster_of[item] + 1
        return torch.from_numpy(walks)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        assert self._net is not None
        with torch.inference_mode():
            found: Floats = self._net(self._walks(journal))[:, -1].numpy()
        return found


class _Recurrent(nn.Module):
    def __init__(self, clusters: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(clusters + 1, width, padding_idx=0)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, clusters)

    def forward(self, walks: Tensor) -> Tensor:
        logits: Tensor = self.head(self.gru(self.embedding(walks))[0])
        return logits


def factors(journal: Journal) -> tuple[Floats, Floats]:
    """Vectors of people [U, RANK] and of interests [C, RANK], of spread 1: the main directions of who liked what."""
    counts = journal.profile.reshape(journal.people, journal.clusters, -1).sum(axis=2)
    shares = np.log1p(counts) - np.log1p(counts).mean(axis=0)
    left, values, right = np.linalg.svd(shares, full_matrices=False)
    people, clusters = left[:, :RANK], (right[:RANK] * values[:RANK, None]).T
    return people / people.std(), clusters / clusters.std()


class HierarchicalBandit(ClusterArm):
    """Hierarchical contextual bandit (HCB, arXiv 2110.09905): LinUCB down the tree, a theme and then an interest.

    Args:
        knowledge: with the tree.
        width: of the confidence bound.
    """

    def __init__(self, knowledge: Knowledge, width: float = 1.0) -> None:
        self._themes, self.width = knowledge.themes, width

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        people, _ = factors(journal)
        seen = journal.impressions()
        self._people = np.concatenate([people, np.ones((len(people), 1))], axis=1)
        clusters = journal.cluster_of[seen.items]
        self._leaf = self._estimate(seen.users, clusters, seen.liked, journal.clusters)
        self._root = self._estimate(seen.users, self._themes[clusters], seen.liked, int(self._themes.max()) + 1)

    def _estimate(self, users: Ints, nodes: Ints, liked: Bools, count: int) -> Floats:
        """[U, nodes] upper confidence bounds for everybody."""
        x = self._people
        found = np.zeros((len(x), count))
        for node in range(count):
            mine = x[users[nodes == node]]
            gram = np.eye(x.shape[1]) + mine.T @ mine
            inverse = np.linalg.inv(gram)
            weights = inverse @ (mine.T @ liked[nodes == node])
            found[:, node] = x @ weights + self.width * np.sqrt(np.einsum("ud,de,ue->u", x, inverse, x))
        return found.astype(np.float32)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        leaf = np.where(allowed, self._leaf, -np.inf)
        out = np.full(allowed.shape, -1e6, dtype=np.float32)
        rows = np.arange(len(allowed))
        for theme in range(self._root.shape[1]):
            own = np.flatnonzero(self._themes == theme)
            best = own[leaf[:, own].argmax(axis=1)]
            out[rows, best] = self._root[:, theme]
        return out


class NeuralLinearBandit(ClusterArm):
    """Thompson sampling on the last layer of a small network (Riquelme et al. 2018, arXiv 1802.09127).

    Args:
        noise: spread of the sampled last layers, as a share of the posterior's.
    """

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise

    def fit(self, journal: Journal, ranker: LinearRanker, seed: int) -> None:
        torch.manual_seed(seed)
        people, clusters = factors(journal)
        self._inputs = (people, clusters)
        seen = journal.impressions()
        self._net = nn.Sequential(nn.Linear(3 * RANK, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        head = nn.Linear(16, 1)
        x = torch.from_numpy(self._pairs(seen.users, journal.cluster_of[seen.items]))
        y = torch.from_numpy(seen.liked.astype(np.float32))
        optimizer = torch.optim.Adam([*self._net.parameters(), *head.parameters()], lr=0.01, weight_decay=1e-4)
        for _ in range(6):
            for rows in torch.split(torch.randperm(len(x)), 256):
                logits = head(self._net(x[rows])).squeeze(1)
                loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        with torch.inference_mode():
            z = self._with_bias(self._net(x).numpy())
        self._covariance = np.linalg.inv(z.T @ z / 0.2 + np.eye(z.shape[1]))
        self._mean = self._covariance @ (z.T @ y.numpy()) / 0.2

    def _pairs(self, users: Ints, clusters: Ints) -> Floats:
        u, c = self._inputs[0][users], self._inputs[1][clusters]
        return np.concatenate([u, c, u * c], axis=1).astype(np.float32)

    @staticmethod
    def _with_bias(z: Floats) -> Doubles:
        return np.concatenate([z, np.ones((len(z), 1))], axis=1).astype(np.float64)

    def order(self, journal: Journal, allowed: Bools, generator: np.random.Generator) -> Floats:
        people, clusters = allowed.shape
        users, others = np.divmod(np.arange(people * clusters), clusters)
        with torch.inference_mode():
            z = self._with_bias(self._net(torch.from_numpy(self._pairs(users, others))).numpy())
        z = z.reshape(people, clusters, -1)
        weights = generator.multivariate_normal(self._mean, self.noise**2 * self._covariance, people)
        found: Floats = np.einsum("ucd,ud->uc", z, weights).astype(np.float32)
        return found
