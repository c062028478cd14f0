"""Multinomial logit over interests: the choice of the next cluster among those that a person does not know yet.

A popular cluster is rare among *novel* ones simply because most people know it already. So each transition counts as a
choice among the clusters that were still new to that person (McFadden 1974, conditional logit): the model's utilities
say what draws people on, not what is left over. A few thousand choices cannot tell N x N pulls apart, so what is known
of two clusters anyway (that their items are alike, that the same people like both) carries the weight, and a pull of
its own only corrects it. It learns in seconds and tells what a context leads to, smoothly; the planner is taught these
distributions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from newfound.types import Bools, Floats, Ints

BATCH = 512
RATE = 0.05
SHRINKAGE = 5.0


@dataclass(frozen=True)
class Choices:
    """Observed choices: contexts [T, K] and labels [T] as cluster indices, what each person knew by then [T, N].

    `kinship` [F, N, N] is what is known of every two clusters without looking at choices, row: interest, column: next.
    `users` [T] tells whose each choice is, by number.
    """

    contexts: Ints
    labels: Ints
    known: Bools
    kinship: Floats | None = None
    users: Ints | None = None

    def __len__(self) -> int:
        return len(self.labels)


class ChoiceModel:
    """Utility of a next cluster: its own, plus what each interest of the context adds, by place.

    Args:
        bias: [N].
        pull: [K, N, N], place in the context, interest, next cluster.
    """

    def __init__(self, bias: Floats, pull: Floats) -> None:
        self.bias, self.pull = bias, pull

    def scores(self, contexts: Ints) -> Floats:
        """Utilities, [B, N]; a context shorter than K counts as the last interests."""
        first = len(self.pull) - contexts.shape[1]
        out = np.tile(self.bias, (len(contexts), 1))
        for place in range(contexts.shape[1]):
            out += self.pull[first + place][contexts[:, place]]
        return out

    def distribution(self, contexts: Ints) -> Floats:
        """p(next | context) for somebody to whom all but the context's own clusters are new, [B, N]."""
        scores = self.scores(contexts)
        np.put_along_axis(scores, contexts, -np.inf, axis=1)
        out = np.exp(scores - scores.max(axis=1, keepdims=True))
        result: Floats = out / out.sum(axis=1, keepdims=True)
        return result


def fit_choices(choices: Choices, penalty: float, epochs: int, seed: int) -> ChoiceModel:
    """Maximises the penalised likelihood of the choices.

    Args:
        penalty: times the squared pulls that kinship leaves unexplained: half the precision of a Gaussian prior.
        epochs: passes over the choices.
        seed: of their order.
    """
    import torch

    n, width = choices.known.shape[1], choices.contexts.shape[1]
    draw = torch.Generator().manual_seed(seed)
    kinship = torch.zeros(0, n, n) if choices.kinship is None else torch.from_numpy(choices.kinship).float()
    bias = torch.zeros(n, requires_grad=True)
    share = torch.zeros(width, len(kinship), requires_grad=True)
    pull = torch.zeros(width, n, n, requires_grad=True)
    optimizer = torch.optim.Adam([bias, share, pull], lr=RATE)
    contexts, labels = torch.from_numpy(choices.contexts), torch.from_numpy(choices.labels)
    known, places = torch.from_numpy(choices.known), torch.arange(width)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = RATE * (1 - epoch / epochs)
        for rows in torch.split(torch.randperm(len(labels), generator=draw), BATCH):
            near = torch.einsum("kf,fbkn->bn", share, kinship[:, contexts[rows]])
            utility = bias + near + pull[places, contexts[rows]].sum(dim=1)
            utility = utility.masked_fill(known[rows], -1e9)
            loss = torch.nn.functional.cross_entropy(utility, labels[rows])
            loss = loss + penalty * pull.square().sum() / len(labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    whole = pull.detach() + torch.einsum("kf,fij->kij", share.detach(), kinship)
    return ChoiceModel(bias.detach().numpy(), whole.numpy())


def kinship_of(vectors: Floats, liked: Bools) -> Floats:
    """Kinship of every two clusters, known without looking at choices.

    Args:
        vectors: [N, dim] of the clusters.
        liked: [U, N], which person likes which cluster.

    Returns:
        [2, N, N], each of spread 1: the cosine of the centred vectors, and the log of how many people like both over
        how many would by chance, shrunk by `SHRINKAGE` imagined people.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    both = liked.T.astype(np.float64) @ liked
    np.fill_diagonal(both, 0)
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0, keepdims=True) / max(both.sum(), 1.0)
    lift = np.log((both + SHRINKAGE) / (expected + SHRINKAGE))
    found = np.stack([unit @ unit.T, lift])
    spread = np.maximum(found.std(axis=(1, 2), keepdims=True), 1e-12)
    result: Floats = (found / spread).astype(np.float32)
    return result
