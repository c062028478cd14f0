"""Work side by side in threads that share the processor's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

AT_MOST = 4  # beyond that, what Python does between the products keeps them waiting for each other


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Runs the tasks, several at a time, each with its share of torch's threads; results in their order.

    Small matrix products hardly gain from a second core. Two of them on a core each do.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(tasks), AT_MOST)
    if workers < 2:
        return [task() for task in tasks]
    try:
        # A thread begins with the number that was set last.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            return [found.result() for found in [pool.submit(task) for task in tasks]]
    finally:
        torch.set_num_threads(threads)
