"""A device that is not there: its tensors compute on the processor, but do not mix with the processor's, as a GPU's.

Stands in for CUDA where there is none. Tensors made under `elsewhere` claim the device `meta`, and every operation
that takes one of them together with a tensor of the processor is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "meta"  # the one that torch lets anybody claim
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Far(torch.Tensor):
    """A tensor of that device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Far:
        given = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **given)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        return self.held.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _Device():
            return func(*args, **(kwargs or {}))


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        far = [one for one in tensors if isinstance(one, Far)]
        # A number may come from anywhere.
        if far and func not in MOVES and any(one.dim() and not isinstance(one, Far) for one in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        goes_far = bool(far)
        if kwargs.get("device") is not None:
            goes_far = torch.device(kwargs["device"]).type == DEVICE
            kwargs["device"] = torch.device("cpu")
        elif func is torch.ops.aten.copy_.default:
            goes_far = isinstance(args[0], Far)
        bare_args, bare_kwargs = tree_map(lambda one: one.held if isinstance(one, Far) else one, (args, kwargs))
        same = {id(one.held): one for one in far}  # what an operation changes in place stays what it was

        def wrapped(one: Any) -> Any:
            if not goes_far or not isinstance(one, torch.Tensor):
                return one
            return same[id(one)] if id(one) in same else Far(one)

        return tree_map(wrapped, func(*bare_args, **bare_kwargs))


class _Literals(TorchFunctionMode):
    """`torch.tensor` goes past the dispatcher: its result is moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is None:
            return func(*args, **kwargs, device="cpu").to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Makes it torch's default device."""
    with _Device(), torch.device(DEVICE), _Literals():
        yield
