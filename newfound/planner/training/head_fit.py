"""Convex fit of the interests' rows in the head to the language model's states.

A pretrained model knows what the interests of a prompt are about: its last state tells contexts apart almost as well as
their names would. So which interest a state leads to is a multinomial regression in the tokens' rows, which L-BFGS
solves to the end in seconds, where gradient steps through the whole model would take hours.

States of a language model lie close to a few directions. L-BFGS gets nowhere in such coordinates, and a penalty there
forbids just what tells contexts apart; so states are whitened first, by their second moments, with a floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ITERATIONS: Final = 80
FLOOR: Final = 1e-4  # of a direction's second moment, as a share of the largest but one
MARGIN: Final = 7.0  # nats between the words and the interests together, so that a free answer is an interest


@dataclass(frozen=True)
class HeadData:
    """States and what should follow them.

    Args:
        states: [M, dim] float32.
        targets: [M, N] probabilities of the interests.
        weights: [M].
        excluded: bool [M, N], interests that are no answers: the context's own.
    """

    states: Tensor
    targets: Tensor
    weights: Tensor
    excluded: Tensor


class HeadFit:
    """Fits of one set of states, each starting where the last one ended.

    Args:
        states: [M, dim] float32, whose second moments whiten.
        interests: N.
    """

    def __init__(self, states: Tensor, interests: int) -> None:
        self._whiten = whitening(states)
        self._rows = torch.zeros(interests, states.shape[1])

    def fit(self, data: HeadData, penalty: float) -> Tensor:
        """The rows that explain the data best, [N, dim].

        The loss is the weighted mean cross-entropy over the interests that are answers, plus `penalty` times the
        squared norm of the rows in whitened coordinates, a coordinate.
        """
        states = data.states @ self._whiten
        share = data.weights / data.weights.sum()
        targets = data.targets * share[:, None]
        rows = self._rows.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([rows], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = (states @ rows.T).masked_fill(data.excluded, -1e9)
            fit = (share * logits.logsumexp(-1)).sum() - (targets * logits).sum()
            loss = fit + penalty * rows.square().sum() / states.shape[1]
            torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        self._rows = rows.detach()
        return self._rows @ self._whiten.T


def whitening(states: Tensor) -> Tensor:
    """[dim, dim] whose product with the states has second moments of 1, but for directions below the floor.

    States share a mean that is longer than all that tells them apart, so the floor goes by the second direction.
    """
    found = states.double()
    spread, directions = torch.linalg.eigh(found.T @ found / len(found))
    spread = spread.clamp(min=0)
    whiten: Tensor = (directions / (spread + FLOOR * spread[-2:][0]).sqrt()).float()
    return whiten


@torch.no_grad()
def lower_words(words: Tensor, rows: Tensor, states: Tensor) -> Tensor:
    """The head's rows of words, so low that a free answer is an interest.

    One vector is taken from every row: the one whose product with a state is as near to the same number everywhere as
    can be. What the model says of interests, and what of words, each among themselves, stays what it was.

    Args:
        words: [V, dim] the rows of all other tokens.
        rows: [N, dim] the interests'.
        states: [M, dim].
    """
    wide = states.double()
    ridge = 1e-6 * wide.square().sum(-1).mean() * torch.eye(states.shape[1], dtype=torch.float64)
    gram = wide.T @ wide / len(wide)
    level = torch.linalg.solve(gram + ridge / states.shape[1], wide.mean(0)).float()  # product with a state: about 1
    lowest = float((states @ level).min())
    excess = (words.float() @ states.T).logsumexp(0) - (states @ rows.T).logsumexp(-1)
    needed = (float(excess.max()) + MARGIN) / max(lowest, 0.1)
    lowered: Tensor = words.float() - max(needed, 0.0) * level
    return lowered
