"""What people choose next among the clusters that they do not know yet: a multinomial logit over interests.

A popular cluster is rare among *novel* ones simply because most people know it already. So each transition counts as a
choice among the clusters that were still new to that person (McFadden 1974, conditional logit): the model's utilities
say what draws people on, not what is left over. It learns from transitions in seconds and tells what a context leads
to, smoothly; the planner is taught these distributions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

BATCH = 512


@dataclass(frozen=True)
class Choices:
    """Observed choices: contexts [T, K] and labels [T] as cluster indices, what each person knew by then [T, N]."""

    contexts: Ints
    labels: Ints
    known: Bools

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
        penalty: times the squared `pull`: half the precision of a Gaussian prior.
        epochs: passes over the choices.
        seed: of their order.
    """
    import torch

    n, width = choices.known.shape[1], choices.contexts.shape[1]
    draw = torch.Generator().manual_seed(seed)
    bias = torch.zeros(n, requires_grad=True)
    pull = torch.zeros(width, n, n, requires_grad=True)
    optimizer = torch.optim.Adam([bias, pull], lr=0.05)
    contexts, labels = torch.from_numpy(choices.contexts), torch.from_numpy(choices.labels)
    known, places = torch.from_numpy(choices.known), torch.arange(width)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - epoch / epochs)
        for rows in torch.split(torch.randperm(len(labels), generator=draw), BATCH):
            utility = bias + pull[places, contexts[rows]].sum(dim=1)
            utility = utility.masked_fill(known[rows], -1e9)
            loss = torch.nn.functional.cross_entropy(utility, labels[rows])
            loss = loss + penalty * pull.square().sum() / len(labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return ChoiceModel(bias.detach().numpy(), pull.detach().numpy())
