"""Fine-tuning of the planner: from mined transitions and clusters to a Hugging Face folder."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch

from newfound.clusters import Clusters
from newfound.compute.distributed import on_accelerator, processes, rank, take_from_first
from newfound.config import PlannerConfig
from newfound.files import new_folder, remove_folder
from newfound.planner.alignment import fit_alignment
from newfound.planner.base_model import base_model
from newfound.planner.decoding.backbone import LeanBackbone, TransformersBackbone, end_token, load_backbone
from newfound.planner.planner import Planner
from newfound.planner.prompt import PromptCodec, load_tokenizer
from newfound.planner.training.checkpoints import STATE, identity
from newfound.planner.training.examples import answer_tokens
from newfound.planner.training.trainable import LeanTrainable, TrainableModel, TransformersTrainable
from newfound.planner.training.trainer import Trainer
from newfound.planner.training.training_set import read_training_set
from newfound.planner.training.validation import sample
from newfound.transitions.artifact import Transitions

log = logging.getLogger("newfound.planner")

RECORD = "training.json"


def finetune_planner(
    transitions: Path,
    clusters: Path,
    config: PlannerConfig,
    seed: int,
    out: Path,
    init: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fine-tunes the planner and writes it as a Hugging Face folder with its prompt and its training record.

    It learns on a GPU where there is one. Under torchrun the processes share the work and the first one writes.

    Args:
        transitions: folder of the mined transitions.
        clusters: folder of the clusters.
        out: written at the end, whole or not at all.
        init: a planner to go on from, instead of the base model.
        threads: for the numerics of each process; None: as torch has it.

    Returns:
        Steps, seconds, tokens read a second, and the chosen checkpoint's measures on validation users and match rate.
        Where descriptions are made of item ids, a language model has nothing to read: the folder then holds a record
        alone, and the table comes from pair frequencies.
    """
    with processes(threads):
        loaded = Clusters.load(clusters)
        return _finetune(Transitions.load(transitions, loaded), loaded, config, seed, out, init)


def _finetune(
    transitions: Transitions, clusters: Clusters, config: PlannerConfig, seed: int, out: Path, init: Path | None
) -> dict[str, Any]:
    out.parent.mkdir(parents=True, exist_ok=True)
    if not clusters.has_words:
        log.warning("planner: needs text or categories, and the items have none; the table will be pair frequencies")
        return _leave_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        base = init if init is not None else base_model(config.model, Path(place) / "base")
        data = read_training_set(transitions, config.finetune, seed)
        # A choice model that differed in its last bit on another machine would have it draw other answers.
        take_from_first([torch.from_numpy(data.targets)])
        validation = sample(transitions.choices("validation"), config.finetune.evaluation_contexts, seed)
        with on_accelerator():
            model, codec = _load_trainable(base, clusters, config, seed)
            trainer = Trainer(model, codec, clusters.interface, data, validation, config.finetune, seed)
            resume = out.with_name(f".{out.name}.resume")
            inputs = identity(_input_digests(base, clusters, transitions), config.model_dump(), seed)
            record = trainer.run(resume if config.finetune.save_every else None, inputs)
            record["clusters"] = clusters.digest
            record["init"] = "planner" if init is not None else "base model"
            record["method"] = config.finetune.method
            if rank() == 0:
                trainer.restore_best()
                record |= _write(trainer, record, config, base, transitions, clusters, out)
                remove_folder(resume, STATE)
    return {name: value for name, value in record.items() if isinstance(value, float | int | str)}


def _load_trainable(
    base: Path, clusters: Clusters, config: PlannerConfig, seed: int
) -> tuple[TrainableModel, PromptCodec]:
    backbone = load_backbone(base, config.precision)
    codec = PromptCodec(load_tokenizer(base), clusters.descriptions, end_token(base))
    if isinstance(backbone, LeanBackbone):
        return LeanTrainable(backbone.model, config.finetune, seed, answer_tokens(codec)), codec
    assert isinstance(backbone, TransformersBackbone)
    return TransformersTrainable(backbone, config.finetune), codec


def _write(
    trainer: Trainer,
    record: dict[str, Any],
    config: PlannerConfig,
    base: Path,
    transitions: Transitions,
    clusters: Clusters,
    out: Path,
) -> dict[str, Any]:
    """Measures the match rate, fits the alignment and writes the folder; returns what that adds to the record."""
    planner = Planner(trainer.model.backbone, trainer.codec, clusters.interface)
    contexts = trainer.contexts_of(trainer.validation.contexts[: config.match_rate_contexts])
    match_rate = planner.match_rate(contexts) if contexts else 1.0
    log.info("planner: match rate %.3f over %d contexts", match_rate, len(contexts))
    alignment, measures = fit_alignment(transitions, lambda contexts: planner.scores(trainer.contexts_of(contexts)))
    added = {"match_rate": match_rate, **measures}
    with new_folder(out, RECORD) as folder:
        trainer.model.save(base, folder)
        trainer.codec.save(folder)
        alignment.save(folder)
        (folder / RECORD).write_text(json.dumps({**record, **added}, indent=1) + "\n", encoding="utf-8")
    return added


def _leave_out(out: Path) -> dict[str, Any]:
    """A planner's folder without a planner."""
    record = {"steps": 0, "left_out": "the items have neither text nor categories"}
    if rank() > 0:
        return record
    with new_folder(out, RECORD) as folder:
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _input_digests(base: Path, clusters: Clusters, transitions: Transitions) -> dict[str, str]:
    """Digests of what a run learns from."""
    weights = sorted((file.name, file.stat().st_size) for file in base.glob("model*.safetensors"))
    return {"clusters": clusters.digest, "transitions": transitions.digest(), "base": json.dumps(weights)}
