"""A training run: interrupted, shared by processes, on another device; its prompts, its log."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from newfound.config import PlannerConfig
from newfound.planner.training import finetune, head_states, training_set
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.trainer import Trainer
from newfound.types import Ints
from tests.planner.fake_device import elsewhere

Trained = tuple[Path, dict[str, object]]


def test_an_interrupted_run_ends_as_if_it_had_not_stopped(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = planner_config.finetune.model_copy(update={"steps": 6, "evaluate_every": 3, "save_every": 2})
    config = planner_config.model_copy(update={"finetune": tuning})
    inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
    finetune_planner(*inputs, tmp_path / "whole")
    step = Trainer.step

    def dies(self: Trainer, at: int) -> float:
        if at == 5:
            raise KeyboardInterrupt
        return step(self, at)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        finetune_planner(*inputs, tmp_path / "stopped")
    taken: list[int] = []
    monkeypatch.setattr(Trainer, "step", lambda self, at: taken.append(at) or step(self, at))
    finetune_planner(*inputs, tmp_path / "stopped")
    assert taken == [5, 6]
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


def test_a_state_of_another_version_is_left_alone(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = planner_config.finetune.model_copy(update={"steps": 2, "probe_contexts": 0, "save_every": 1})
    config = planner_config.model_copy(update={"finetune": tuning})
    inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune_planner(*inputs, tmp_path / "out")
    state = tmp_path / ".out.resume" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "of_another_version": 1}))
    assert finetune_planner(*inputs, tmp_path / "out")["steps"] == 2
    assert not state.exists()


def test_no_loss_is_shown_before_the_first_step(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuning = planner_config.finetune.model_copy(update={"steps": 1})
    config = planner_config.model_copy(update={"finetune": tuning})
    with caplog.at_level(logging.INFO, "newfound.planner"):
        finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    lines = [line for line in caplog.messages if line.startswith("planner: step ")]
    assert [re.findall(r"step (\d) of 1|(loss|mrr) ", line) for line in lines] == [
        [("0", ""), ("", "mrr")],
        [("1", ""), ("", "loss"), ("", "mrr")],
    ]
    assert "nan" not in caplog.text


def test_prompts_with_hints_are_taught_the_hints_worth(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, seen = Trainer.loss, list[int]()

    def watched(self: Trainer, rows: Ints, hints: Ints, answers: object) -> object:
        seen.extend(hints.tolist())
        plain = self.data.targets[rows]
        taught = self.data.hinted_targets(rows, hints)
        np.testing.assert_allclose(taught.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(taught[hints < 0], plain[hints < 0])
        for row, hint in zip(*(part.tolist() for part in (np.flatnonzero(hints >= 0), hints[hints >= 0])), strict=True):
            odds = taught[row, hint] / (1 - taught[row, hint]), plain[row, hint] / (1 - plain[row, hint])
            assert odds[0] / odds[1] == pytest.approx(np.exp(1.5), rel=1e-3)
        prompts = [self.codec.tokenizer.decode(prompt[-1]) for prompt in self.examples.prompts(rows, hints)]
        assert [" lately:" in prompt for prompt in prompts] == (hints >= 0).tolist()
        return loss(self, rows, hints, answers)

    monkeypatch.setattr(Trainer, "loss", watched)
    monkeypatch.setattr(training_set, "fit_hint_boost", lambda *_: 1.5)
    tuning = planner_config.finetune.model_copy(update={"steps": 4, "hint_share": 0.5})
    config = planner_config.model_copy(update={"finetune": tuning})
    measures = finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    assert measures["hint_strength"] == 1.5
    assert 0.2 < np.mean(np.array(seen) >= 0) < 0.8
    never = config.model_copy(update={"finetune": tuning.model_copy(update={"hint_share": 0.0})})
    seen.clear()
    finetune_planner(planner_world / "transitions", planner_world / "clusters", never, 3, tmp_path / "never")
    assert set(seen) == {-1}


def test_the_head_alone_follows_new_transitions(
    trained_planner: Trained, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    tuning = planner_config.finetune.model_copy(update={"steps": 0})
    config = planner_config.model_copy(update={"finetune": tuning})
    measures = finetune_planner(
        planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out", init=trained_planner[0]
    )
    assert measures["steps"] == measures["chosen_step"] == 0 and measures["match_rate"] == 1.0
    before, after = (load_file(folder / "model.safetensors") for folder in (trained_planner[0], tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"lm_head.weight"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_the_same_on_another_device(
    method: str, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed to see that nothing is left behind on the processor; see `elsewhere`."""
    with elsewhere(), pytest.raises(RuntimeError, match="same device"):
        torch.ones(2) + torch.from_numpy(np.ones(2))
    changes = {"method": method, "lora_rank": 4, "steps": 6, "batch_size": 8, "evaluate_every": 2, "save_every": 2}
    tuning = planner_config.finetune.model_copy(update={**changes, "learning_rate": 1e-3})
    config = planner_config.model_copy(update={"finetune": tuning})
    inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
    adam = torch.optim.AdamW
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "on_accelerator", nullcontext)
        finetune_planner(*inputs, tmp_path / "here")
        patch.setattr(finetune, "on_accelerator", elsewhere)
        # What that device lacks, and a GPU has: fused steps, and tensors without a version.
        patch.setattr(torch.optim, "AdamW", lambda groups, fused, **given: adam(groups, **given))
        patch.setattr(torch._C, "_InferenceMode", lambda _: torch.no_grad())
        step = Trainer.step
        patch.setattr(
            Trainer, "step", lambda self, at: (_ for _ in ()).throw(KeyboardInterrupt) if at == 5 else step(self, at)
        )
        with pytest.raises(KeyboardInterrupt):
            finetune_planner(*inputs, tmp_path / "there")
        patch.setattr(Trainer, "step", step)
        finetune_planner(*inputs, tmp_path / "there")
    here, there = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("here", "there"))
    for one, other in zip(there["curve"], here["curve"], strict=True):
        assert one.get("loss", 0.0) == pytest.approx(other.get("loss", 0.0), rel=1e-3)
        assert one["mrr"] == pytest.approx(other["mrr"], abs=0.02)
    assert (
        load_file(tmp_path / "there" / "model.safetensors").keys()
        == load_file(tmp_path / "here" / "model.safetensors").keys()
    )


TOGETHER = """
import json, sys
from pathlib import Path
from newfound.config import PlannerConfig
from newfound.compute.distributed import processes
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training import head_states
from newfound.planner.training.trainer import Trainer
head_states.CONTEXTS = 16  # blocks enough for both processes to read states for the head
planner_world, out, config = Path(sys.argv[1]), Path(sys.argv[2]), PlannerConfig.model_validate_json(sys.argv[3])
inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
step, taken = Trainer.step, []


def dies(self, at):
    if at == 5:
        raise KeyboardInterrupt
    return step(self, at)


def counts(self, at):
    taken.append(at)
    return step(self, at)

with processes(1) as rank:
    finetune_planner(*inputs, out / f"whole-{rank}")
    Trainer.step = dies
    try:
        finetune_planner(*inputs, out / "stopped")
    except KeyboardInterrupt:
        Trainer.step = counts
    finetune_planner(*inputs, out / "stopped")
    assert taken == [5, 6, 7, 8], taken
"""


def test_two_processes_follow_the_curve_of_one_and_the_first_writes(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses agree to 1 %, the measures to .02: only the order of sums differs."""
    # Seven contexts a step: the processes' parts are unequal.
    changes = {"steps": 8, "batch_size": 7, "evaluate_every": 2, "save_every": 2, "learning_rate": 1e-3}
    tuning = planner_config.finetune.model_copy(update=changes)
    config = planner_config.model_copy(update={"finetune": tuning})
    (tmp_path / "run.py").write_text(TOGETHER, encoding="utf-8")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(tmp_path / "run.py"), str(planner_world), str(out), config.model_dump_json()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([*command, *arguments], check=True, env=environment, timeout=300)
    monkeypatch.setattr(head_states, "CONTEXTS", 16)
    finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "alone")
    shared, alone = (
        json.loads((folder / "training.json").read_text()) for folder in (out / "whole-0", tmp_path / "alone")
    )
    assert len(shared["curve"]) == len(alone["curve"]) == 5
    for one, other in zip(shared["curve"], alone["curve"], strict=True):
        assert one.get("loss", 0.0) == pytest.approx(other.get("loss", 0.0), rel=0.01)
        assert one["mrr"] == pytest.approx(other["mrr"], abs=0.02)
    assert shared["curve"][-1]["loss"] < shared["curve"][1]["loss"]
    # One that was interrupted ends as if it had not been, and the second process left nothing.
    assert sorted(path.name for path in out.iterdir()) == ["stopped", "whole-0"]
    whole, stopped = ((out / name / "model.safetensors").read_bytes() for name in ("whole-0", "stopped"))
    assert whole == stopped
