"""The planner on a real GPU: it learns what it learns on the processor, and says the same."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from newfound.clusters import Clusters
from newfound.config import PlannerConfig, TableConfig
from newfound.planner import planner
from newfound.planner.planner import Planner
from newfound.planner.training import finetune
from newfound.planner.training.finetune import finetune_planner
from newfound.table import TransitionTable, build_table

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Trained = tuple[Path, dict[str, object]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Undo it, and what comes is computed on the GPU again."""
    for module in (finetune, planner):
        monkeypatch.setattr(module, "on_accelerator", nullcontext)
    return monkeypatch


def on_both(folder: Path, clusters: Clusters, here: pytest.MonkeyPatch, precision: str) -> tuple[Planner, Planner]:
    """The planner on the processor, and on the GPU."""
    slow = Planner.load(folder, clusters, precision=precision)
    here.undo()
    fast = Planner.load(folder, clusters, precision=precision)
    assert slow.backbone.device.type == "cpu" and fast.backbone.device.type == "cuda"
    return slow, fast


@pytest.mark.parametrize("lean", [True, False])
def test_it_says_what_the_processor_says(
    lean: bool, trained_planner: Trained, planner_world: Path, here: pytest.MonkeyPatch
) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    slow, fast = on_both(trained_planner[0], clusters, here, "float32")
    if not lean:
        fast = Planner.load(trained_planner[0], clusters, precision="float32", lean=False)
        assert fast.backbone.device.type == "cuda"
    contexts = [(a, b) for a in clusters.interface for b in clusters.interface if a != b]
    ours, theirs = fast.log_probs(contexts, anew=True), slow.log_probs(contexts, anew=True)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert fast.match_rate(contexts) == slow.match_rate(contexts)


def test_it_learns_what_it_learns_on_the_processor(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    inputs = (planner_world / "transitions", planner_world / "clusters", planner_config, 3)
    finetune_planner(*inputs, tmp_path / "slow")
    here.undo()
    finetune_planner(*inputs, tmp_path / "fast")
    slow, fast = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("slow", "fast"))
    for one, other in zip(fast["fits"], slow["fits"], strict=True):
        assert one["mrr"] == pytest.approx(other["mrr"], abs=0.03)


def test_a_table_says_the_same_where_the_best_is_clear(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    config = TableConfig(precision="bfloat16", second_build=8)
    inputs = (trained_planner[0], planner_world / "clusters", planner_world / "transitions", config)
    build_table(*inputs, tmp_path / "slow")
    here.undo()
    build_table(*inputs, tmp_path / "fast")
    assert json.loads((tmp_path / "fast" / "table.json").read_text())["engine"]["device"] == "cuda"
    clusters = Clusters.load(inputs[1])
    slow, fast = (TransitionTable.load(tmp_path / name, clusters) for name in ("slow", "fast"))
    contexts = list(slow.contexts())
    first, other = slow.log_probs(contexts), fast.log_probs(contexts)
    best = np.sort(first, axis=1)[:, ::-1]
    clear = best[:, 0] - best[:, 1] > 0.1
    assert clear.mean() > 0.3 and (first.argmax(axis=1) == other.argmax(axis=1))[clear].all()
