"""The states that the head is fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from newfound.clusters import Clusters
from newfound.config import PlannerConfig
from newfound.planner.training.examples import Examples
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.head_states import Block, HeadStates

Trained = tuple[Path, dict[str, object]]


def test_the_head_sees_every_description_whatever_is_drawn(
    trained_planner: Trained,
    planner_world: Path,
    planner_config: PlannerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_block, answers = HeadStates.read_block, set[tuple[int, ...]]()

    def reads(self: HeadStates, block: Block) -> torch.Tensor:
        for place, answer in zip(block.parents, block.answers, strict=True):
            label = self.examples.codec.answers.index(answer)
            assert self.examples.data.targets[block.rows[place], label] > 0, "new to the context"
        answers.update(block.answers)
        states = read_block(self, block)
        assert len(states) == len(block)
        return states

    monkeypatch.setattr(HeadStates, "read_block", reads)
    monkeypatch.setattr(Examples, "draw_answer", lambda self, row: int(np.flatnonzero(self.data.targets[row])[0]))
    tuning = planner_config.finetune.model_copy(update={"steps": 0})
    config = planner_config.model_copy(update={"finetune": tuning})
    inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
    finetune_planner(*inputs, tmp_path / "out", init=trained_planner[0])
    assert len(answers) == len(Clusters.load(planner_world / "clusters").interface)
