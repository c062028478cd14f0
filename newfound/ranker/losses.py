"""The training losses: pure functions of queries [T, dim], item vectors [N, dim] and targets [T]."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from newfound.compute.precision import product_dtype

SLICE = 3 << 20  # scores held at a time: they stay in the cache
SLICE_ON_GPU = 1 << 28


class _FullSoftmax(torch.autograd.Function):
    """Cross entropy over every item with its gradients, in slices of the queries.

    The [T, N] scores exist for one slice at a time. The gradient by them is made in place right away, so nothing of
    that size is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, targets: Tensor, precision: torch.dtype) -> Tensor:
        count = len(queries)
        q, v = queries.to(precision), vectors.to(precision)
        grad_q, grad_v = torch.empty_like(queries), torch.zeros_like(vectors)
        loss = queries.new_zeros(())
        step = max(32, (SLICE_ON_GPU if queries.is_cuda else SLICE) // len(vectors))
        for start in range(0, count, step):
            part, goal = q[start : start + step], targets[start : start + step, None]
            p = torch.softmax(part @ v.t(), dim=1)  # [step, N]
            loss -= p.gather(1, goal).float().clamp_min(1e-30).log().sum()
            p.scatter_add_(1, goal, torch.full_like(goal, -1, dtype=precision))
            grad_q[start : start + step] = p @ v
            grad_v += p.t() @ part
        ctx.save_for_backward(grad_q.div_(count), grad_v.div_(count))
        return loss / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_q, grad_v = ctx.saved_tensors
        return grad_q * grads[0], grad_v * grads[0], None, None


def full_softmax(queries: Tensor, vectors: Tensor, targets: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Mean cross entropy of the targets among all items.

    Args:
        queries: [T, dim].
        vectors: [N, dim].
        targets: int64 [T], rows of `vectors`.
        precision: of the matrix products; None: by the machine. Sums over slices stay in the inputs' own.
    """
    result: Tensor = _FullSoftmax.apply(queries, vectors, targets, precision or product_dtype())  # type: ignore[no-untyped-call]
    return result


def sampled_softmax(
    queries: Tensor, vectors: Tensor, targets: Tensor, negatives: Tensor, precision: torch.dtype | None = None
) -> Tensor:
    """Mean cross entropy of each target among itself and negatives that the whole batch shares.

    With n of N items drawn uniformly, each negative stands for N / n items, so log(N / n) is added to its score: then
    the denominator estimates that of the full softmax without bias (Bengio and Senecal 2008, for a uniform proposal).

    Args:
        queries: [T, dim].
        vectors: [N, dim].
        targets: int64 [T].
        negatives: int64 [n], without repeats; one that is a query's own target does not count for it.
        precision: of the matrix products; None: by the machine.
    """
    precision = precision or product_dtype()
    own = (queries * vectors[targets]).sum(1)  # [T]
    others = (queries.to(precision) @ vectors[negatives].to(precision).t()).float()  # [T, n]
    others = others + math.log(max(len(vectors) - 1, 1) / len(negatives))
    others = others.masked_fill(negatives == targets[:, None], -torch.inf)
    return (torch.logaddexp(torch.logsumexp(others, dim=1), own) - own).mean()
