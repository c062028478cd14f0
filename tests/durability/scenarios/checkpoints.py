"""Checkpoints of the ranker and of the planner: training goes on from the last one or from the one before."""

from __future__ import annotations

from pathlib import Path

import torch
from newfound.planner.training.checkpoints import Progress, load_progress, save_progress, saved_step

from newfound.config import RankerConfig
from newfound.ranker.data import Sequences
from newfound.ranker.train import fit
from tests.durability.scenario import Scenario

RANKER = RankerConfig(dim=4, blocks=1, epochs=2, max_length=4)
SEQUENCES = Sequences.of([[0, 1, 2], [1, 2, 0], [2, 0, 1]] * 2)


def _train(root: Path, epochs: int) -> None:
    fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=epochs)


def _check_ranker(root: Path, done: bool) -> None:
    """It goes on to the end that it would have come to anyway."""
    if done:
        resumed: list[int] = []
        fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=2, watch=lambda n, _: resumed.append(n) or False)
        assert resumed == [], "the second epoch was acknowledged"
    else:
        found = fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=2)
        assert len(found.curve) == 2


def _masters(value: float) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    masters = {"a": torch.full((8,), value, requires_grad=True)}
    optimizer = torch.optim.AdamW(masters.values(), lr=0.0)
    masters["a"].grad = torch.full((8,), value)
    optimizer.step()
    return masters, optimizer


def _save(root: Path, step: int) -> None:
    masters, optimizer = _masters(float(step))
    save_progress(root / "planner", "course", Progress(step=step), masters, {}, optimizer)


def _check_planner(root: Path, done: bool) -> None:
    step = saved_step(root / "planner", "course")
    assert step in ({2} if done else {1, 2}), step
    masters, optimizer = _masters(0.0)
    progress = load_progress(root / "planner", "course", masters, {}, optimizer)
    assert progress is not None and progress.step == step
    assert torch.equal(masters["a"], torch.full((8,), float(step)))


SCENARIOS = [
    Scenario("a ranker's checkpoint", lambda r: _train(r, 1), lambda r: _train(r, 2), _check_ranker),
    Scenario("a planner's checkpoint", lambda r: _save(r, 1), lambda r: _save(r, 2), _check_planner),
]
