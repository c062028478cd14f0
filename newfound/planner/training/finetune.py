"""The planner's fine-tuning: from mined transitions and clusters to a Hugging Face folder."""

from __future__ import annotations

import hashlib
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
from newfound.planner.training.trainable import LeanTrainable, TrainableModel, TransformersTrainable
from newfound.planner.training.trainer import Trainer, answer_tokens
from newfound.planner.training.training_set import read_choices, read_lessons, sample

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
        return _finetune(transitions, Clusters.load(clusters), config, seed, out, init)


def _finetune(
    transitions: Path, clusters: Clusters, config: PlannerConfig, seed: int, out: Path, init: Path | None
) -> dict[str, Any]:
    out.parent.mkdir(parents=True, exist_ok=True)
    if not clusters.has_words:
        log.warning("planner: needs text or categories, and the items have none; the table will be pair frequencies")
        return _leave_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        base = init if init is not None else base_model(config.model, Path(place) / "base")
        lessons = read_lessons(transitions, clusters, config.finetune, seed)
        # A teacher that differed in its last bit on another machine would have it draw other answers.
        take_from_first([torch.from_numpy(lessons.targets)])
        moments = sample(read_choices(transitions, clusters, "validation"), config.finetune.evaluation_contexts, seed)
        with on_accelerator():
            backbone = load_backbone(base, config.precision)
            codec = PromptCodec(load_tokenizer(base), clusters.descriptions, end_token(base))
            student: TrainableModel
            if isinstance(backbone, LeanBackbone):
                student = LeanTrainable(backbone.model, config.finetune, seed, answer_tokens(codec))
            else:
                assert isinstance(backbone, TransformersBackbone)
                student = TransformersTrainable(backbone, config.finetune)
            course = Trainer(student, codec, clusters.interface, lessons, moments, config.finetune, seed)
            resume = out.with_name(f".{out.name}.resume")
            made_of = identity(planner_inputs(base, clusters, transitions), config.model_dump(), seed)
            record = course.run(resume if config.finetune.save_every else None, made_of)
            record["clusters"] = clusters.digest
            record["init"] = "planner" if init is not None else "base model"
            record["method"] = config.finetune.method
            if rank() == 0:
                course.restore_best()
                planner = Planner(student.backbone, codec, clusters.interface)
                asked = moments.contexts[: config.match_rate_contexts]
                record["match_rate"] = planner.match_rate(course.named(asked)) if len(asked) else 1.0
                log.info("planner: match rate %.3f over %d contexts", record["match_rate"], len(asked))
                named = course.named
                alignment, worth = fit_alignment(
                    transitions, clusters, lambda contexts: planner.scores(named(contexts))
                )
                record |= worth
                with new_folder(out, RECORD) as made:
                    student.save(base, made)
                    codec.save(made)
                    alignment.save(made)
                    (made / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                remove_folder(resume, STATE)
    return {name: value for name, value in record.items() if isinstance(value, float | int | str)}


def _leave_out(out: Path) -> dict[str, Any]:
    """A planner's folder without a planner."""
    record = {"steps": 0, "left_out": "the items have neither text nor categories"}
    if rank() > 0:
        return record
    with new_folder(out, RECORD) as folder:
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def planner_inputs(base: Path, clusters: Clusters, transitions: Path) -> dict[str, str]:
    """Digests of what a course learns from."""
    lessons = hashlib.sha256((transitions / "balanced.parquet").read_bytes())
    lessons.update((transitions / "transitions.parquet").read_bytes())
    weights = sorted((file.name, file.stat().st_size) for file in base.glob("model*.safetensors"))
    return {"clusters": clusters.digest, "transitions": lessons.hexdigest(), "base": json.dumps(weights)}
