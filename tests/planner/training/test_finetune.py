"""Fine-tuning teaches the format and what people did next, and writes a folder that others can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import PlannerConfig
from newfound.errors import DataError
from newfound.planner.planner import Planner
from newfound.planner.training.finetune import finetune_planner

Trained = tuple[Path, dict[str, object]]


def test_it_learns_the_format_and_the_next_cluster(trained_planner: Trained, planner_world: Path) -> None:
    folder, measures = trained_planner
    assert measures["match_rate"] == 1.0
    assert float(str(measures["validation_novel_recall@1"])) > 2 * float(str(measures["validation_chance@1"]))
    planner = Planner.load(folder, Clusters.load(planner_world / "clusters"), precision="float32")
    best, _ = planner.top_k([("c0", "c3"), ("c1", "c4")], 1)
    assert best[:, 0].tolist() == [4, 5]


def test_the_record_tells_the_curve_and_the_choice(trained_planner: Trained) -> None:
    folder, measures = trained_planner
    record = json.loads((folder / "training.json").read_text())
    assert [point["step"] for point in record["curve"]] == [0, 120, 240]
    at_best = max(record["curve"][1:], key=lambda point: point["mrr"])
    assert record["chosen_step"] == at_best["step"] == measures["chosen_step"]
    assert record["validation_mrr"] == at_best["mrr"]


def test_training_is_deterministic(planner_world: Path, planner_config: PlannerConfig, tmp_path: Path) -> None:
    short = planner_config.model_copy(update={"finetune": planner_config.finetune.model_copy(update={"steps": 5})})
    made = []
    for name in ("a", "b"):
        finetune_planner(planner_world / "transitions", planner_world / "clusters", short, 3, tmp_path / name)
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing is left beside them


def test_transformers_reads_the_folder_and_agrees(trained_planner: Trained, planner_world: Path) -> None:
    folder, _ = trained_planner
    clusters = Clusters.load(planner_world / "clusters")
    ours = Planner.load(folder, clusters, precision="float32")
    theirs = Planner.load(folder, clusters, precision="float32", lean=False)
    assert (ours.backbone.name, theirs.backbone.name) == ("lean", "transformers")
    contexts = [("c0", "c3"), ("c1", "c4"), ("c5",)]
    np.testing.assert_allclose(
        ours.scores(contexts, exhaustive=True), theirs.scores(contexts, exhaustive=True), atol=2e-3, rtol=1e-4
    )
    assert ours.free_generate(contexts) == theirs.free_generate(contexts)


def test_lora_trains_small_additions_and_saves_them_merged(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    tuning = planner_config.finetune.model_copy(
        update={"method": "lora", "lora_rank": 4, "steps": 60, "head_rate": 0.0}
    )
    config = planner_config.model_copy(update={"finetune": tuning})
    finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "prompt.json", "training.json"} <= names
    assert not any("adapter" in name for name in names)
    curve = json.loads((tmp_path / "out" / "training.json").read_text())["curve"]
    planner = Planner.load(tmp_path / "out", Clusters.load(planner_world / "clusters"), precision="float32")
    assert curve[-1]["loss"] < 25 and np.isfinite(planner.scores([("c0", "c1")])).all()


def test_training_goes_on_from_a_planner(
    trained_planner: Trained, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    folder, _ = trained_planner
    tuning = planner_config.finetune.model_copy(update={"steps": 2, "learning_rate": 1e-5})
    config = planner_config.model_copy(update={"finetune": tuning})
    measures = finetune_planner(
        planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out", init=folder
    )
    assert measures["match_rate"] == 1.0 and measures["init"] == "planner"


def test_an_architecture_that_is_not_llama_trains_by_transformers(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = tmp_path / "gpt2"
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=330, n_embd=24, n_layer=1, n_head=2, n_positions=128, eos_token_id=2, bos_token_id=1)
    GPT2LMHeadModel(shape).save_pretrained(base)
    (base / "tokenizer.json").write_text((planner_world / "base" / "tokenizer.json").read_text())
    tuning = planner_config.finetune.model_copy(update={"steps": 4, "batch_size": 4})
    config = planner_config.model_copy(update={"finetune": tuning, "model": str(base), "match_rate_contexts": 2})
    measures = finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    assert measures["steps"] == 4
    planner = Planner.load(tmp_path / "out", Clusters.load(planner_world / "clusters"), precision="float32")
    assert planner.backbone.name == "transformers"
    everything = planner.scores([("c0", "c1")], exhaustive=True)[0]
    best, values = planner.top_k([("c0", "c1")], 3)
    assert best[0].tolist() == np.argsort(-everything, kind="stable")[:3].tolist()
    np.testing.assert_allclose(values[0], np.sort(everything)[::-1][:3], atol=2e-3)


def test_an_empty_training_set_is_refused(planner_world: Path, planner_config: PlannerConfig, tmp_path: Path) -> None:
    mined = shutil.copytree(planner_world / "transitions", tmp_path / "transitions")
    pq.write_table(schema.BALANCED.empty_table(), mined / "balanced.parquet")
    with pytest.raises(DataError, match="at least one positive transition"):
        finetune_planner(mined, planner_world / "clusters", planner_config, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()
