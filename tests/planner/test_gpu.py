"""The planner on a real GPU: it learns what it learns on the processor, and its search is as exact."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import PlannerConfig, TableConfig
from newfound.planner import planner
from newfound.planner.planner import Planner
from newfound.planner.training import finetune
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.trainer import Trainer
from newfound.table import build_table

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
def test_its_search_is_exact_and_agrees_with_the_processor(
    lean: bool, trained_planner: Trained, planner_world: Path, here: pytest.MonkeyPatch
) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    slow, fast = on_both(trained_planner[0], clusters, here, "float32")
    if not lean:
        fast = Planner.load(trained_planner[0], clusters, precision="float32", lean=False)
        assert fast.backbone.device.type == "cuda"
    contexts = [(a, b) for a in clusters.interface for b in clusters.interface if a != b]
    everything = fast.scores(contexts, exhaustive=True)
    best, values = fast.top_k(contexts, 3)
    np.testing.assert_allclose(np.take_along_axis(everything, best, axis=1), values, atol=1e-3)
    np.testing.assert_allclose(np.sort(everything, axis=1)[:, ::-1][:, :3], values, atol=1e-3)
    np.testing.assert_allclose(everything, slow.scores(contexts, exhaustive=True), atol=2e-3)
    assert fast.free_generate(contexts) == slow.free_generate(contexts)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_what_it_learns_on_the_processor(
    method: str, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    changes = {"method": method, "lora_rank": 4, "steps": 6, "batch_size": 8, "evaluate_every": 2, "save_every": 2}
    tuning = planner_config.finetune.model_copy(update={**changes, "learning_rate": 1e-3})
    inputs = (
        planner_world / "transitions",
        planner_world / "clusters",
        planner_config.model_copy(update={"finetune": tuning}),
        3,
    )
    finetune_planner(*inputs, tmp_path / "slow")
    here.undo()
    step = Trainer.step
    with here.context() as patch:
        patch.setattr(
            Trainer, "step", lambda self, at: (_ for _ in ()).throw(KeyboardInterrupt) if at == 5 else step(self, at)
        )
        with pytest.raises(KeyboardInterrupt):
            finetune_planner(*inputs, tmp_path / "fast")
    taken: list[int] = []
    here.setattr(Trainer, "step", lambda self, at: taken.append(at) or step(self, at))
    finetune_planner(*inputs, tmp_path / "fast")
    assert taken == [5, 6]
    slow, fast = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("slow", "fast"))
    for one, other in zip(fast["curve"], slow["curve"], strict=True):
        assert one.get("loss", 0.0) == pytest.approx(other.get("loss", 0.0), rel=0.05)
        assert one["mrr"] == pytest.approx(other["mrr"], abs=0.03)


def test_a_table_says_the_same_where_the_best_is_clear(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    config = TableConfig(top_k=3, exact=None, precision="bfloat16", second_build=8)
    inputs = (trained_planner[0], planner_world / "clusters", planner_world / "transitions", config)
    build_table(*inputs, tmp_path / "slow")
    here.undo()
    build_table(*inputs, tmp_path / "fast")
    assert json.loads((tmp_path / "fast" / "table.json").read_text())["engine"]["device"] == "cuda"
    slow, fast = (pq.read_table(tmp_path / name / "table.parquet").to_pandas() for name in ("slow", "fast"))
    scores = slow[schema.SCORE].to_numpy().reshape(-1, 3)
    first, other = (frame[schema.CLUSTER].to_numpy().reshape(-1, 3)[:, 0] for frame in (slow, fast))
    clear = scores[:, 0] - scores[:, 1] > 0.1
    assert clear.mean() > 0.3 and (first == other)[clear].all()
