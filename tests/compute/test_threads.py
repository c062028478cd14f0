"""Tasks side by side: their order, their share of the threads, and what becomes of an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from newfound.compute.threads import side_by_side, workers


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

    torch.set_num_threads(2)
    assert side_by_side([partial(task, number) for number in range(2)]) == [(0, 1), (1, 1)]
    assert torch.get_num_threads() == 2
    assert side_by_side([torch.get_num_threads]) == [2]
    assert side_by_side([]) == []


def test_an_error_is_raised_what_has_not_begun_is_left_out_and_the_threads_are_as_before() -> None:
    begun, fails = list[int](), threading.Event()

    def task(number: int) -> None:
        begun.append(number)
        if number == 0:
            fails.set()
            raise ZeroDivisionError
        assert fails.wait(20)
        time.sleep(0.2)  # long enough for the caller to hear of it

    with pytest.raises(ZeroDivisionError):
        side_by_side([partial(task, number) for number in range(100)])
    assert len(begun) < 50
    assert torch.get_num_threads() == 4


def test_within_a_task_everything_goes_one_after_the_other() -> None:
    inner = [threading.get_ident] * 3
    for found in side_by_side([lambda: side_by_side(inner)] * 2):
        assert len(set(found)) == 1


def test_cores_are_shared_out_evenly() -> None:
    for threads, wanted in ((1, 1), (2, 2), (3, 3), (6, 3), (7, 3), (11, 2), (16, 4)):
        torch.set_num_threads(threads)
        assert workers() == wanted
