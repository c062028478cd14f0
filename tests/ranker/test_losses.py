"""The losses against torch's own and against hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from newfound.ranker import losses
from newfound.ranker.losses import full_softmax, sampled_softmax


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    queries = (3 * torch.randn(150, 8)).requires_grad_()
    vectors = F.normalize(torch.randn(40, 8), dim=1).requires_grad_()
    return queries, vectors, torch.randint(0, 40, (150,))


@pytest.mark.parametrize("cells", [1 << 20, 40 * 64])
def test_full_softmax_is_cross_entropy_with_its_gradients(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SLICE", cells)  # in one slice, and in several
    queries, vectors, targets = _inputs()
    expected = F.cross_entropy(queries @ vectors.t(), targets)
    wanted = torch.autograd.grad(expected, (queries, vectors))
    loss = full_softmax(queries, vectors, targets, torch.float32)
    found = torch.autograd.grad(2 * loss, (queries, vectors))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, 2 * other)


def test_full_softmax_in_half_precision_stays_close() -> None:
    queries, vectors, targets = _inputs()
    expected = F.cross_entropy(queries @ vectors.t(), targets)
    wanted = torch.autograd.grad(expected, (queries, vectors))
    found = torch.autograd.grad(full_softmax(queries, vectors, targets), (queries, vectors))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_sampled_softmax_by_hand() -> None:
    vectors = torch.eye(4)
    queries = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
    # Target 0 scores 1; negatives 2 and 3 score 2 and 0 and stand for 3 / 2 others each.
    expected = -math.log(math.e / (math.e + 1.5 * (math.e**2 + 1)))
    loss = sampled_softmax(queries, vectors, torch.tensor([0]), torch.tensor([2, 3]), torch.float32)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_target_among_the_negatives_does_not_count_against_itself() -> None:
    vectors, queries = torch.eye(3), torch.ones(1, 3)
    loss = sampled_softmax(queries, vectors, torch.tensor([1]), torch.tensor([0, 1]), torch.float32)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_sampling_everything_is_the_full_softmax() -> None:
    queries, vectors, targets = _inputs()
    everything = torch.arange(40)
    sampled = sampled_softmax(queries, vectors, targets, everything, torch.float32)
    # 40 drawn, of which the 39 others count, each for 39 / 40.
    scores = (queries @ vectors.t()).scatter_add(1, targets[:, None], torch.full((150, 1), -math.log(39 / 40)))
    torch.testing.assert_close(sampled, F.cross_entropy(scores, targets))
