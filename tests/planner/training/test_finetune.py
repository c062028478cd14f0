"""Fine-tuning teaches the format and what people did next, and writes a folder that others can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from newfound.clusters import Clusters
from newfound.config import PlannerConfig
from newfound.errors import DataError, VocabularyError
from newfound.planner.planner import Planner
from newfound.planner.training import finetune
from newfound.planner.training import trainer as course
from newfound.planner.training import training_set as lessons_module
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.trainer import Trainer
from newfound.planner.training.training_set import (
    draw_batches,
    hint_strength,
    ranking,
    read_choices,
    read_lessons,
    successors_of_others,
)
from newfound.transitions.choice_model import Choices
from tests.planner.fake_device import elsewhere

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


def test_an_interrupted_course_ends_as_if_it_had_not_stopped(
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


def test_lessons_leave_out_other_users_and_withheld_contexts(
    planner_world: Path, planner_config: PlannerConfig
) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    lessons = read_lessons(planner_world / "transitions", clusters, planner_config.finetune, 0)
    assert not any({6, 7} == set(context) for context in lessons.contexts.tolist())
    np.testing.assert_allclose(lessons.targets.sum(1), 1, atol=1e-5)
    for context, target in zip(lessons.contexts, lessons.targets, strict=True):
        assert target[context].max() == 0  # what a person knows is never next
    choices = read_choices(planner_world / "transitions", clusters)
    assert not choices.known[np.arange(len(choices)), choices.labels].any()


def choices_of(contexts: list[tuple[int, int]], labels: list[int], n: int) -> Choices:
    known = np.zeros((len(labels), n), dtype=bool)
    for row, context in enumerate(contexts):
        known[row, list(context)] = True
    return Choices(np.array(contexts), np.array(labels), known)


def test_a_hint_is_what_others_chose_most_in_the_very_context() -> None:
    contexts = [(0, 1), (0, 1), (0, 1), (1, 0), (0, 1), (2, 3)]
    found = successors_of_others(choices_of(contexts, [4, 4, 5, 6, 5, 4], 7))
    assert found.tolist() == [5, 5, 4, -1, 4, -1]


def test_a_hint_counts_for_as_much_as_it_has_been_worth(planner_config: PlannerConfig) -> None:
    draw = np.random.default_rng(0)
    contexts = [tuple(draw.choice(10, 2, replace=False).tolist()) for _ in range(3000)]
    blind = [int(draw.integers(10, 16)) for _ in contexts]
    # What each very context leads to is more than what its two interests add up to.
    own = {context: int(draw.integers(10, 16)) for context in contexts}
    told = [own[context] if draw.random() < 0.4 else label for context, label in zip(contexts, blind, strict=True)]
    config = planner_config.finetune.model_copy(update={"teacher_penalty": 50.0})
    assert hint_strength(choices_of(contexts, blind, 16), config, 0) < 0.2
    assert 0.8 < hint_strength(choices_of(contexts, told, 16), config, 0) < 2
    alone = choices_of([(0, 1), (1, 2)], [3, 3], 4)
    assert hint_strength(alone, config, 0) == 0


def test_prompts_with_hints_are_taught_the_hints_worth(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, seen = Trainer.loss, list[int]()

    def watched(self: Trainer, rows: course.Rows, hints: course.Rows, answers: object) -> object:
        seen.extend(hints.tolist())
        plain = self.lessons.targets[rows]
        taught = self.taught(rows, hints)
        np.testing.assert_allclose(taught.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(taught[hints < 0], plain[hints < 0])
        for row, hint in zip(*(part.tolist() for part in (np.flatnonzero(hints >= 0), hints[hints >= 0])), strict=True):
            odds = taught[row, hint] / (1 - taught[row, hint]), plain[row, hint] / (1 - plain[row, hint])
            assert odds[0] / odds[1] == pytest.approx(np.exp(1.5), rel=1e-3)
        prompts = [self.codec.tokenizer.decode(prompt[-1]) for prompt in self.prompts(rows, hints)]
        assert [" lately:" in prompt for prompt in prompts] == (hints >= 0).tolist()
        return loss(self, rows, hints, answers)

    monkeypatch.setattr(Trainer, "loss", watched)
    monkeypatch.setattr(lessons_module, "hint_strength", lambda *_: 1.5)
    tuning = planner_config.finetune.model_copy(update={"steps": 4, "hint_share": 0.5})
    config = planner_config.model_copy(update={"finetune": tuning})
    measures = finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    assert measures["hint_strength"] == 1.5
    assert 0.2 < np.mean(np.array(seen) >= 0) < 0.8
    never = config.model_copy(update={"finetune": tuning.model_copy(update={"hint_share": 0.0})})
    seen.clear()
    finetune_planner(planner_world / "transitions", planner_world / "clusters", never, 3, tmp_path / "never")
    assert set(seen) == {-1}


def test_batches_share_first_interests_and_repeat_by_seed(planner_world: Path, planner_config: PlannerConfig) -> None:
    lessons = read_lessons(
        planner_world / "transitions", Clusters.load(planner_world / "clusters"), planner_config.finetune, 0
    )
    first, again, other = (draw_batches(lessons, 16, 4, seed) for seed in (1, 1, 2))
    batches = [next(first) for _ in range(5)]
    assert all(len(batch) == 16 for batch in batches)
    assert max(len(set(lessons.contexts[batch, 0].tolist())) for batch in batches) < 16
    assert [b.tolist() for b in batches] == [next(again).tolist() for _ in range(5)]
    assert batches[0].tolist() != next(other).tolist()


def test_ranking_takes_known_clusters_out() -> None:
    from newfound.transitions.choice_model import Choices

    known = np.array([[True, True, False, False], [True, False, False, True]])
    moments = Choices(np.array([[0, 1], [3, 0]]), np.array([3, 1]), known)
    scores = np.array([[9.0, 8.0, 1.0, 2.0], [9.0, 1.0, 2.0, 8.0]], dtype=np.float32)
    found = ranking(scores, moments)
    assert found["novel_recall@1"] == 0.5 and found["novel_recall@10"] == 1.0
    assert found["mrr"] == 0.75 and found["chance@1"] == 0.5 and found["chance@10"] == 1.0


def test_an_empty_training_set_and_unknown_clusters_are_refused(
    trained_planner: Trained, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    for name in ("balanced", "transitions"):
        table = pq.read_table(planner_world / "transitions" / f"{name}.parquet")
        pq.write_table(table.slice(0, 0 if name == "balanced" else None), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="at least one positive transition"):
        finetune_planner(tmp_path, planner_world / "clusters", planner_config, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    planner = Planner.load(trained_planner[0], Clusters.load(planner_world / "clusters"), precision="float32")
    with pytest.raises(VocabularyError, match="'elsewhere'"):
        planner.top_k([("c0", "elsewhere")], 1)
    with pytest.raises(VocabularyError, match="at least one"):
        planner.top_k([()], 1)


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


def test_the_head_sees_every_description_whatever_is_drawn(
    trained_planner: Trained,
    planner_world: Path,
    planner_config: PlannerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, asked_for = Trainer.read, set[tuple[int, ...]]()

    def reads(self: Trainer, rows: course.Rows, asked: course.Questions) -> torch.Tensor:
        for place, answer in zip(asked.some, asked.answers, strict=True):
            assert self.lessons.targets[rows[place], self.codec.answers.index(answer)] > 0, "new to the context"
        asked_for.update(asked.answers)
        return read(self, rows, asked)

    monkeypatch.setattr(Trainer, "read", reads)
    monkeypatch.setattr(Trainer, "draw", lambda self, row: int(np.flatnonzero(self.lessons.targets[row])[0]))
    tuning = planner_config.finetune.model_copy(update={"steps": 0})
    config = planner_config.model_copy(update={"finetune": tuning})
    finetune_planner(
        planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out", init=trained_planner[0]
    )
    assert len(asked_for) == len(Clusters.load(planner_world / "clusters").interface)


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
from newfound.planner.training import trainer as course
course.CONTEXTS = 16  # blocks enough for both processes to read states for the head
planner_world, out, config = Path(sys.argv[1]), Path(sys.argv[2]), PlannerConfig.model_validate_json(sys.argv[3])
inputs = (planner_world / "transitions", planner_world / "clusters", config, 3)
step, taken = course.Trainer.step, []

def dies(self, at):
    if at == 5:
        raise KeyboardInterrupt
    return step(self, at)

def counts(self, at):
    taken.append(at)
    return step(self, at)

with processes(1) as rank:
    finetune_planner(*inputs, out / f"whole-{rank}")
    course.Trainer.step = dies
    try:
        finetune_planner(*inputs, out / "stopped")
    except KeyboardInterrupt:
        course.Trainer.step = counts
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
    monkeypatch.setattr(course, "CONTEXTS", 16)
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
