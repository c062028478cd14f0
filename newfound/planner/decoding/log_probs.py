"""Log-probabilities of chosen tokens under the softmax over the full vocabulary, from a model's states.

The product with the head is as wide as the vocabulary. In bfloat16 its results carry 8 bits, too coarse for the few
tokens that are queried: those are computed again in float32, in the numerator and in the normaliser alike, so that a
log-probability never exceeds 0 and differs from float32's only by the rounding of all other tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 128  # a block of logits stays in the processor's cache
LOGITS_ON_GPU = 1 << 28  # held at a time


def block_rows(head: Tensor) -> int:
    """States whose logits are held at a time."""
    return max(ROWS, LOGITS_ON_GPU // len(head)) if head.is_cuda else ROWS


def token_log_probs(head: Tensor, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """log p(token | state) for a ragged set of queries.

    Args:
        head: [V, dim].
        states: [T, dim].
        rows: [Q] the state of each query, sorted.
        tokens: [Q] its token.

    Returns:
        [Q] float32.
    """
    out, size = torch.empty(len(rows)), block_rows(head)
    starts = torch.searchsorted(rows, torch.arange(0, len(states) + size, size)).tolist()
    for block, (start, stop) in enumerate(zip(starts, starts[1:], strict=False)):
        if start == stop:
            continue
        local, queried = rows[start:stop] - block * size, tokens[start:stop]
        part = states[block * size : (block + 1) * size]
        logits = functional.linear(part, head)
        exact = (part.float()[local] * head[queried].float()).sum(-1)
        top = logits.amax(-1).float()
        top = top.scatter_reduce(0, local, exact, "amax")
        everything = (logits.float() - top[:, None]).exp_().sum(-1)
        shifted = top[local]
        rough = torch.zeros(len(part)).index_add(0, local, (logits[local, queried].float() - shifted).exp())
        fine = torch.zeros(len(part)).index_add(0, local, (exact - shifted).exp())
        out[start:stop] = exact - shifted - ((everything - rough).clamp(min=0) + fine).log()[local]
    return out


def block_log_probs(head: Tensor, states: Tensor, tokens: Tensor) -> Tensor:
    """log p(token | state) of the same tokens for every state.

    Args:
        head: [V, dim].
        states: [T, dim].
        tokens: [R], distinct.

    Returns:
        [T, R] float32.
    """
    chosen = head[tokens].float()
    out, size = torch.empty(len(states), len(tokens)), block_rows(head)
    for start in range(0, len(states), size):
        part = states[start : start + size]
        logits = functional.linear(part, head)
        exact = part.float() @ chosen.T
        top = torch.maximum(logits.amax(-1).float(), exact.amax(-1))[:, None]
        everything = (logits.float() - top).exp_().sum(-1)
        rough = (logits[:, tokens].float() - top).exp().sum(-1)
        normaliser = ((everything - rough).clamp(min=0) + (exact - top).exp().sum(-1)).log()
        out[start : start + size] = exact - top - normaliser[:, None]
    return out


def likeliest(head: Tensor, states: Tensor) -> Tensor:
    """[T] the most probable next token of each state."""
    return torch.cat([functional.linear(part, head).argmax(-1) for part in torch.split(states, block_rows(head))])
