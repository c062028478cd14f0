"""Fine-tuning teaches what people did next, within its time, and writes a folder that others can read."""

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
from newfound.planner import states
from newfound.planner.planner import Planner
from newfound.planner.training import finetune
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.recent import fit_recent
from newfound.planner.training.training_set import reading_order
from newfound.transitions.artifact import Transitions

Trained = tuple[Path, dict[str, object]]


def test_it_learns_what_comes_next(trained_planner: Trained, planner_world: Path) -> None:
    folder, measures = trained_planner
    assert measures["match_rate"] == 1.0
    assert float(str(measures["validation_novel_recall@1"])) > 2 * float(str(measures["validation_chance@1"]))
    planner = Planner.load(folder, Clusters.load(planner_world / "clusters"), precision="float32")
    best, _ = planner.top_k([("c0", "c3"), ("c1", "c4")], 1)
    assert best[:, 0].tolist() == [4, 5]


def test_the_record_tells_every_fit_and_the_choice(trained_planner: Trained) -> None:
    folder, measures = trained_planner
    record = json.loads((folder / "training.json").read_text())
    best = max(record["fits"], key=lambda fit: fit["mrr"])
    assert len(record["fits"]) == 5 and record["contexts"] == 56
    assert (record["penalty"], record["prior"]) == (best["penalty"], best["prior"])
    assert record["validation_mrr"] == best["mrr"] == measures["validation_mrr"]


def test_training_is_deterministic(planner_world: Path, planner_config: PlannerConfig, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        finetune_planner(planner_world / "transitions", planner_world / "clusters", planner_config, 3, tmp_path / name)
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing is left beside them


def test_transformers_reads_the_folder_and_agrees(trained_planner: Trained, planner_world: Path) -> None:
    """Without any of our code: the softmax after a prompt, over the interests' tokens, is the planner's."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = trained_planner
    clusters = Clusters.load(planner_world / "clusters")
    ours = Planner.load(folder, clusters, precision="float32")
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= module.config.vocab_size and not module.config.tie_word_embeddings
    for context in [("c0", "c3"), ("c1", "c4"), ("c5",)]:
        places = tuple(clusters.index[c] for c in context)
        prompt = ours.codec.tokens(places)
        assert tokenizer.decode(list(prompt)) == ours.codec.text(places)
        with torch.inference_mode():
            logits = module(input_ids=torch.tensor([prompt])).logits[0, -1]
        assert tokenizer.convert_ids_to_tokens(int(logits.argmax())).startswith("<interest: ")
        words = logits.softmax(-1)[: ours.codec.first_token].sum()
        assert float(words) < 0.01
        theirs = logits[list(ours.codec.answers)].clone()
        theirs[list(places)] = -torch.inf
        np.testing.assert_allclose(ours.log_probs([context], anew=True)[0], theirs.log_softmax(-1), atol=2e-3)


def test_a_planner_goes_on_with_the_states_that_it_has(
    trained_planner: Trained,
    planner_world: Path,
    planner_config: PlannerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, before = trained_planner
    monkeypatch.setattr(finetune, "read_states", lambda *_: pytest.fail("everything is read"))
    config = planner_config.model_copy(
        update={"finetune": planner_config.finetune.model_copy(update={"minutes": 0.0, "teacher_penalty": 50.0})}
    )
    measures = finetune_planner(
        planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out", init=folder
    )
    assert (measures["match_rate"], measures["init"], measures["contexts"]) == (1.0, "planner", 56)
    one, other = ((path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "out"))
    assert len(one) == len(other) and one != other, "the vocabulary does not grow again"


def test_a_refit_on_everybody_keeps_the_settings_that_were_measured(
    trained_planner: Trained, planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    """Validation users' choices are among those it learns: choosing by them would choose what repeats them."""
    folder = shutil.copytree(trained_planner[0], tmp_path / "measured")
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**record, "penalty": 0.5, "prior": 70.0}))
    mined = shutil.copytree(planner_world / "transitions", tmp_path / "transitions")
    mining = json.loads((mined / "transitions.json").read_text())
    mining["config"]["learn_from"] = "all"
    (mined / "transitions.json").write_text(json.dumps(mining))
    refitted = finetune_planner(mined, planner_world / "clusters", planner_config, 3, tmp_path / "out", init=folder)
    assert (refitted["penalty"], refitted["prior"]) == (0.5, 70.0)
    assert not any(name.startswith("validation") for name in refitted)


def test_an_architecture_that_is_not_llama_is_read_by_transformers(
    planner_world: Path, planner_config: PlannerConfig, tmp_path: Path
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = tmp_path / "gpt2"
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=330, n_embd=24, n_layer=1, n_head=2, n_positions=128, eos_token_id=2, bos_token_id=1)
    GPT2LMHeadModel(shape).save_pretrained(base)
    (base / "tokenizer.json").write_text((planner_world / "base" / "tokenizer.json").read_text())
    config = planner_config.model_copy(update={"model": str(base), "match_rate_contexts": 2})
    measures = finetune_planner(planner_world / "transitions", planner_world / "clusters", config, 3, tmp_path / "out")
    assert measures["match_rate"] == 1
    planner = Planner.load(tmp_path / "out", Clusters.load(planner_world / "clusters"), precision="float32")
    assert planner.backbone.name == "transformers"
    contexts = [("c0", "c1"), ("c4", "c2")]
    np.testing.assert_allclose(planner.log_probs(contexts), planner.log_probs(contexts, anew=True), atol=1e-3)


def test_the_clock_bounds_what_is_read_and_frequent_contexts_come_first(
    trained_planner: Trained, planner_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    mined = Transitions.load(planner_world / "transitions", clusters)
    order = reading_order(mined, 30)
    counts = mined.context_counts()
    told = [counts.get(tuple(clusters.interface[c] for c in context), 0) for context in order.tolist()]
    assert len(order) == 30 and told == sorted(told, reverse=True)
    assert len(reading_order(mined, 100)) == 56
    monkeypatch.setattr(states, "ROUND", 10)
    planner = Planner.load(trained_planner[0], clusters, precision="float32")
    read = states.read_states(planner.backbone, planner.codec, order, minutes=1e-9)
    assert {tuple(c) for c in read.contexts.tolist()} == {tuple(c) for c in order[:10].tolist()}
    assert len(states.read_states(planner.backbone, planner.codec, order, minutes=5)) == 30


def test_recent_choices_move_a_refreshs_rows(trained_planner: Trained, planner_world: Path) -> None:
    clusters = Clusters.load(planner_world / "clusters")
    planner = Planner.load(trained_planner[0], clusters, precision="float32")
    mined = Transitions.load(planner_world / "transitions", clusters)
    before = planner.log_probs([("c0", "c3")])[0]
    monkey = [np.array([[0, 3]]), np.array([6]), np.array([500])]
    mined.recent_pairs = lambda recent: tuple(monkey)  # type: ignore[assignment, method-assign, return-value]
    fit_recent(planner, trained_planner[0], mined, 0.5)
    after = planner.log_probs([("c0", "c3")])[0]
    assert after[6] > before[6] + 0.5 and after.argmax() == 6


def test_an_empty_training_set_is_refused(planner_world: Path, planner_config: PlannerConfig, tmp_path: Path) -> None:
    mined = shutil.copytree(planner_world / "transitions", tmp_path / "transitions")
    pq.write_table(schema.BALANCED.empty_table(), mined / "balanced.parquet")
    with pytest.raises(DataError, match="at least one positive transition"):
        finetune_planner(mined, planner_world / "clusters", planner_config, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()
