"""The head's rows are fitted to the end, also where states lie close to a few directions."""

from __future__ import annotations

import torch

from newfound.planner.training.head_fit import HeadData, fit_rows, other_mass

DIM, ROWS, OTHERS = 16, 5, 7


def world(count: int) -> tuple[torch.Tensor, torch.Tensor, HeadData]:
    """States of very unequal spread, and targets that a head could give exactly."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.logspace(1, -2, DIM)
    states = torch.randn(count, DIM, generator=draw) * spread + 3
    truth = torch.randn(ROWS, DIM, generator=draw) / spread
    head = torch.randn(ROWS + OTHERS, DIM, generator=draw) * 0.01
    others = other_mass(head, states, torch.arange(ROWS))
    wanted = torch.cat([states @ truth.T, others[:, None]], dim=1).softmax(1)[:, :ROWS]
    return head[:ROWS].clone(), truth, HeadData(states, others, wanted)


def loss(rows: torch.Tensor, data: HeadData) -> float:
    logits = torch.cat([data.states @ rows.T, data.others[:, None]], dim=1)
    wanted = torch.cat([data.targets, 1 - data.targets.sum(1, keepdim=True)], dim=1)
    return float(-(wanted * logits.log_softmax(1)).sum(1).mean())


def test_it_finds_what_tells_states_apart_in_their_faintest_directions() -> None:
    rows, truth, data = world(600)
    best, before = loss(truth, data), loss(rows, data)
    assert loss(fit_rows(rows, data, 1e-6), data) - best < 0.02 * (before - best)


def test_a_penalty_holds_rows_where_they_were() -> None:
    rows, _, data = world(200)
    near, far = fit_rows(rows, data, 1e3), fit_rows(rows, data, 1e-6)
    assert float((near - rows).norm()) < 0.01 * float((far - rows).norm())
