"""Tasks side by side: their order, their share of the threads, and what becomes of an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from newfound.threads import side_by_side


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_keep_the_tasks_order_and_the_threads_are_shared_out() -> None:
    together = threading.Barrier(2, timeout=20)

    def task(number: int) -> tuple[int, int]:
        together.wait()  # never ends unless another one runs beside it
        return number, torch.get_num_threads()

    assert side_by_side([partial(task, number) for number in range(2)]) == [(0, 2), (1, 2)]
    assert torch.get_num_threads() == 4
    assert side_by_side([torch.get_num_threads]) == [4]
    assert side_by_side([]) == []


def test_an_error_is_raised_and_the_threads_are_as_before() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1 // 0, lambda: 1])
    assert torch.get_num_threads() == 4
