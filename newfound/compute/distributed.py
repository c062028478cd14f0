"""Processes that share a training: torchrun starts them, each takes its part, and what they found is added up.

Every function is also for a process that is alone, and does nothing then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def processes(threads: int | None = None) -> Iterator[int]:
    """Joins the other processes where torchrun started several; gives this one's rank.

    Args:
        threads: for the numerics of each; None: as many as torch has.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if joins:
        dist.init_process_group("gloo")
    try:
        yield rank()
    finally:
        torch.set_num_threads(before)
        if joins:
            dist.destroy_process_group()


@contextmanager
def on_accelerator() -> Iterator[None]:
    """Puts tensors that are made within on this process's GPU, where the machine has one."""
    if not torch.cuda.is_available():
        yield
        return
    with torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()):
        yield


def rank() -> int:
    """This process's number; the first, 0, is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part(length: int) -> slice:
    """This process's part of a sequence: neighbours stay together, and no part is longer by more than one."""
    return slice(length * rank() // size(), length * (rank() + 1) // size())


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same bits in each; in place."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Adds up the gradients; a process without one gives zeros."""
    if size() > 1:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


@torch.no_grad()
def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Gives every process the first one's values, in place."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def agree(value: int) -> bool:
    """Whether all processes have the same value."""
    if size() == 1:
        return True
    ends = torch.tensor([value, -value])
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1])
