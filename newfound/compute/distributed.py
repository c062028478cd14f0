"""Processes that share a training: torchrun starts them, each takes its part, and what they found is added up.

Every function is also for a process that is alone, and does nothing then.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, and not exported
from torch.distributed.rendezvous import rendezvous

_alone: ContextVar[bool] = ContextVar("alone", default=False)
_joins = itertools.count()


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
        _join()
    try:
        yield rank()
    finally:
        torch.set_num_threads(before)
        if joins:
            dist.destroy_process_group()


def _join() -> None:
    """Joins by a part of torchrun's store that nobody used yet.

    torchrun keeps its store when it starts killed processes anew, with the addresses of the dead in it.
    """
    store, number, count = next(iter(rendezvous("env://")))
    start = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}.{next(_joins)}"
    dist.init_process_group("gloo", store=PrefixStore(start, store), rank=number, world_size=count)


@contextmanager
def on_accelerator() -> Iterator[None]:
    """Puts tensors that are made within on this process's GPU, where the machine has one."""
    if not torch.cuda.is_available():
        yield
        return
    with torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Lets this process do something for itself, in which no other one takes part: what is shared is then not."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def rank() -> int:
    """This process's number; the first, 0, is the one that writes."""
    return dist.get_rank() if _joined() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _joined() else 1


def _joined() -> bool:
    return dist.is_initialized() and not _alone.get()


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


def share(note: str, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The first process's note and tensors, in every process; whatever the others give is not looked at.

    For what lies on the first one's disk, which the others may not see: they may be other machines.
    """
    if size() == 1:
        return note, dict(tensors)
    kinds = {name: (str(value.dtype)[6:], list(value.shape)) for name, value in tensors.items()}
    text = json.dumps([note, kinds]).encode() if rank() == 0 else b""
    length = torch.tensor([len(text)], device="cpu")
    dist.broadcast(length, 0)
    head = torch.frombuffer(bytearray(text.ljust(int(length))), dtype=torch.uint8)
    dist.broadcast(head, 0)
    note, kinds = json.loads(head.numpy().tobytes())
    found = {}
    for name, (kind, shape) in kinds.items():
        dtype = getattr(torch, kind)
        value = tensors[name].cpu() if rank() == 0 else torch.empty(shape, dtype=dtype, device="cpu")
        found[name] = value.contiguous()
        dist.broadcast(found[name].reshape(-1).view(torch.uint8), 0)  # as bytes: gloo knows no truth values
    return note, found
