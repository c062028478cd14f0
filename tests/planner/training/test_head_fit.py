"""The interests' rows are fitted to the end, also where states lie close to a few directions."""

from __future__ import annotations

import torch

from newfound.planner.training.head_fit import HeadData, HeadFit, lower_words

DIM, ROWS, WORDS = 16, 5, 40


def world(count: int) -> tuple[torch.Tensor, HeadData]:
    """States of very unequal spread around a long mean, and targets that a head could give exactly."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -2, DIM)
    states = torch.randn(count, DIM, generator=draw) * spread + 3
    truth = torch.randn(ROWS, DIM, generator=draw) / spread
    truth -= truth.mean(1, keepdim=True)  # the mean tells nothing apart
    excluded = torch.zeros(count, ROWS, dtype=torch.bool)
    excluded[torch.arange(count), torch.arange(count) % ROWS] = True
    wanted = (states @ truth.T).masked_fill(excluded, -torch.inf).softmax(1)
    return truth, HeadData(states, wanted, torch.ones(count), excluded)


def loss(rows: torch.Tensor, data: HeadData) -> float:
    logits = (data.states @ rows.T).masked_fill(data.excluded, -1e9)
    return float(-(data.targets * logits.log_softmax(1)).sum(1).mean())


def test_it_finds_what_tells_states_apart_in_their_faintest_directions() -> None:
    truth, data = world(600)
    best, before = loss(truth, data), loss(torch.zeros(ROWS, DIM), data)
    assert loss(HeadFit(data.states, ROWS).fit(data, 1e-6), data) - best < 0.02 * (before - best)


def test_a_penalty_holds_rows_near_zero_and_weights_count() -> None:
    _, data = world(200)
    near, far = HeadFit(data.states, ROWS).fit(data, 1e3), HeadFit(data.states, ROWS).fit(data, 1e-6)
    assert float(near.norm()) < 0.01 * float(far.norm())
    weights = torch.tensor([1.0] + [1e-6] * 199)
    one = HeadFit(data.states, ROWS).fit(HeadData(data.states, data.targets, weights, data.excluded), 1e-6)
    first = HeadData(data.states[:1], data.targets[:1], torch.ones(1), data.excluded[:1])
    assert loss(one, first) < loss(far, first) + 1e-3


def test_lowered_words_keep_their_order_and_never_win() -> None:
    truth, data = world(100)
    words = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(1)) * 3
    low = lower_words(words, truth, data.states)
    ours, theirs = (data.states @ truth.T).logsumexp(-1), (data.states @ low.T).logsumexp(-1)
    assert float((theirs - ours).max()) < -6
    before, after = (data.states @ words.T).softmax(-1), (data.states @ low.T).softmax(-1)
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-2)
    assert torch.equal(lower_words(low, truth, data.states), low), "low enough is left alone"
