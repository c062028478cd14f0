"""Convex fit of the head's rows, for the tokens that answers are made of, to the model's states.

A pretrained model knows what the interests of a prompt are about before it is tuned: its last state tells contexts
apart almost as well as their names would, and within a description its state tells which word comes next. So which
token a state leads to is a convex problem in the tokens' rows of the head, which L-BFGS solves to the end in seconds,
where gradient steps through the whole model would take an hour. The objective is the planner's own: cross-entropy over
the full vocabulary, all other rows held fixed.

States of a language model lie close to a few directions. L-BFGS gets nowhere in such coordinates, and a penalty there
forbids just what tells contexts apart; so states are whitened first, by their second moments, with a floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ITERATIONS = 150
BLOCK = 128
FLOOR = 1e-3  # of a direction's second moment, as a share of the mean one


@dataclass(frozen=True)
class HeadData:
    """States and what should follow them.

    Args:
        states: [M, dim] float32.
        others: [M] log of the summed exponentials of all logits but the fitted rows'.
        targets: [M, R] probabilities of the fitted rows' tokens; what is missing from 1 goes to the other tokens.
    """

    states: Tensor
    others: Tensor
    targets: Tensor


def other_mass(head: Tensor, states: Tensor, tokens: Tensor) -> Tensor:
    """[M] log-sum-exp of the logits of all tokens but `tokens`.

    Args:
        head: [V, dim].
        states: [M, dim] in the head's precision.
        tokens: [R].
    """
    found = []
    for part in torch.split(states, BLOCK):
        logits = torch.nn.functional.linear(part, head).float()
        logits[:, tokens] = float("-inf")
        found.append(logits.logsumexp(-1))
    return torch.cat(found)


def fit_rows(rows: Tensor, data: HeadData, penalty: float) -> Tensor:
    """The rows that explain the data best.

    Args:
        rows: [R, dim] float32, where to start.
        penalty: times the squared change of the rows, in whitened coordinates.

    Returns:
        [R, dim] float32.
    """
    whiten = _whitening(data.states)
    states, targets = data.states @ whiten, data.targets
    start = data.states @ rows.T  # [M, R]
    rest = 1 - targets.sum(1)
    change = torch.zeros_like(rows, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = start + states @ change.T
        everything = torch.logaddexp(data.others, logits.logsumexp(-1))
        fit = (everything - (targets * logits).sum(-1) - rest * data.others).mean()
        loss = fit + penalty * change.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return rows + change.detach() @ whiten.T


def _whitening(states: Tensor) -> Tensor:
    """[dim, dim] whose product with the states has second moments of 1, but for directions below the floor."""
    states = states.double()
    spread, directions = torch.linalg.eigh(states.T @ states / len(states))
    found: Tensor = (directions / (spread.clamp(min=0) + FLOOR * spread.mean()).sqrt()).float()
    return found
