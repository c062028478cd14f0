"""Work side by side in threads that share the processor's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")

AT_MOST = 4  # beyond that, what Python does between the products keeps them waiting for each other
_alone = Lock()  # the number of threads is the process's


def workers() -> int:
    """Number of tasks that run at a time: the cores are shared out evenly, at most one is left over."""
    threads = torch.get_num_threads()
    return max(count for count in range(1, AT_MOST + 1) if threads // count * count >= threads - 1 and count <= threads)


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Runs the tasks, several at a time, each with its share of torch's threads; results in their order.

    Small matrix products hardly gain from a second core. Two of them on a core each do. A thread of somebody else that
    uses torch for the first time meanwhile gets a share as well.

    Raises:
        Exception: a task's; those that have not begun are left out.
    """
    count = min(workers(), len(tasks))
    if count < 2 or not _alone.acquire(blocking=False):
        return [task() for task in tasks]
    threads = torch.get_num_threads()
    # A thread begins with the number that was set last.
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads // count,))
    try:
        return [found.result() for found in [pool.submit(task) for task in tasks]]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
        _alone.release()
