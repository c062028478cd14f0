"""Log-probabilities are those of the full softmax, also where the products are coarse."""

from __future__ import annotations

import pytest
import torch

from newfound.planner.decoding import log_probs
from newfound.planner.decoding.log_probs import block_log_probs, likeliest, token_log_probs

V, DIM, T = 50, 16, 300  # more states than a block holds


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_they_agree_with_the_full_softmax(dtype: torch.dtype, tolerance: float) -> None:
    draw = torch.Generator().manual_seed(0)
    head, states = torch.randn(V, DIM, generator=draw).to(dtype), torch.randn(T, DIM, generator=draw).to(dtype)
    true = (states.double() @ head.double().T).log_softmax(-1)
    rows, tokens = (torch.rand(T, V, generator=draw) < 0.04).nonzero(as_tuple=True)  # ragged: some states have none
    found = token_log_probs(head, states, rows, tokens)
    torch.testing.assert_close(found.double(), true[rows, tokens], atol=tolerance, rtol=0)
    some = torch.tensor([3, 17, 41])
    block = block_log_probs(head, states, some)
    torch.testing.assert_close(block.double(), true[:, some], atol=tolerance, rtol=0)
    assert T > log_probs.ROWS and found.max() <= 0 and block.max() <= 0


def test_a_near_certain_token_never_exceeds_one_in_coarse_products() -> None:
    head = torch.eye(4, dtype=torch.bfloat16)
    states = (torch.tensor([[20.1, 0.3, 0.2, 0.1]]) * torch.linspace(0.9, 1.1, 200)[:, None]).to(torch.bfloat16)
    found = token_log_probs(head, states, torch.arange(200), torch.zeros(200, dtype=torch.long))
    assert (found <= 0).all() and (found > -1e-6).all()
    assert likeliest(head, states).tolist() == [0] * 200
