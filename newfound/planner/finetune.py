"""Supervised fine-tuning: towards answers that are exactly descriptions, and towards what people did next.

A context was followed by different clusters for different people. Each step therefore learns, where descriptions part
(at the first token), the whole distribution over next clusters that was observed for the context, and below that the
tokens of one drawn cluster. Contexts of a step share what their prompts share, padding does not exist, and the head is
only computed where something is to be learned. The checkpoint is the one that ranks best on validation users' moments.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newfound.clusters import Clusters
from newfound.config import FinetuneConfig, PlannerConfig
from newfound.planner.backbone import LeanBackbone, TransformersBackbone, end_token, load_backbone
from newfound.planner.decoding import Work, read_prompts
from newfound.planner.lessons import Lessons, Moments, draw_batches, ranking, read_lessons, read_moments
from newfound.planner.planner import Planner
from newfound.planner.pretrained import base_model
from newfound.planner.prompt import PromptCodec, load_tokenizer
from newfound.planner.students import LeanStudent, Masters, Student, TransformersStudent

log = logging.getLogger("newfound.planner")


def finetune_planner(
    transitions: Path,
    clusters: Path,
    config: PlannerConfig,
    seed: int,
    out: Path,
    init: Path | None = None,
) -> dict[str, Any]:
    """Fine-tunes the planner and writes it as a Hugging Face folder with its prompt and its training record.

    Args:
        transitions: folder of the mined transitions.
        clusters: folder of the clusters.
        out: written at the end, whole or not at all.
        init: a planner to go on from, instead of the base model.

    Returns:
        Steps, seconds, tokens read a second, and the chosen checkpoint's measures on validation users and match rate.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        part = Path(place) / "planner"
        part.mkdir()
        base = init if init is not None else base_model(config.model, Path(place) / "base")
        loaded = Clusters.load(clusters)
        lessons = read_lessons(transitions, loaded, config.finetune)
        moments = read_moments(
            transitions / "transitions.parquet", loaded, "validation", config.finetune.evaluation_contexts, seed
        )
        backbone = load_backbone(base, config.precision)
        codec = PromptCodec(load_tokenizer(base), loaded.descriptions, end_token(base))
        student: Student
        if isinstance(backbone, LeanBackbone):
            student = LeanStudent(backbone.model, config.finetune, seed)
        else:
            assert isinstance(backbone, TransformersBackbone)
            student = TransformersStudent(backbone, config.finetune)
        course = Course(student, codec, loaded, lessons, moments, config.finetune, seed)
        record = course.run()
        course.restore_best()
        planner = Planner(student.backbone, codec, loaded.interface)
        sample = moments.contexts[: config.match_rate_contexts]
        record["match_rate"] = planner.match_rate(course.named(sample)) if len(sample) else 1.0
        log.info("planner: match rate %.3f over %d contexts", record["match_rate"], len(sample))
        student.save(base, part)
        codec.save(part)
        record["clusters"] = loaded.digest
        record["init"] = "planner" if init is not None else "base model"
        record["method"] = config.finetune.method
        (part / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    return {name: value for name, value in record.items() if isinstance(value, float | int | str)}


class Course:
    """One run of training.

    Args:
        student: what learns.
        codec: the prompt.
        lessons: what is taught.
        moments: by which the checkpoint is chosen; where there are none, the last one is taken.
    """

    def __init__(
        self,
        student: Student,
        codec: PromptCodec,
        clusters: Clusters,
        lessons: Lessons,
        moments: Moments,
        config: FinetuneConfig,
        seed: int,
    ) -> None:
        self.student, self.codec, self.clusters = student, codec, clusters
        self.lessons, self.moments, self.config = lessons, moments, config
        self.masters = Masters(student.trained)
        self.optimizer = torch.optim.AdamW(
            self.masters.values.values(), lr=config.learning_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True
        )
        self.batches = draw_batches(lessons, config.batch_size, config.share_first, seed)
        self.rng = np.random.default_rng([seed, 1])
        first = [answer[0] for answer in codec.answers]
        self.first_tokens, place = np.unique(first, return_inverse=True)
        self.first_of = torch.from_numpy(np.eye(len(self.first_tokens), dtype=np.float32)[place])  # [N, R]
        self.best: dict[str, Tensor] = {}
        self.tokens = 0

    def named(self, contexts: np.ndarray[Any, Any]) -> list[tuple[str, ...]]:
        """Contexts of indices as contexts of cluster ids."""
        return [tuple(self.clusters.interface[c] for c in row) for row in contexts.tolist()]

    def run(self) -> dict[str, Any]:
        """Trains; returns the record with its curve."""
        config, started, training = self.config, time.monotonic(), 0.0
        curve: list[dict[str, float]] = []
        best, chosen = -math.inf, config.steps
        losses: list[float] = []
        for step in range(1, config.steps + 1):
            tick = time.monotonic()
            losses.append(self.step(step))
            training += time.monotonic() - tick
            if step % config.evaluate_every and step != config.steps:
                continue
            point = {
                "step": float(step),
                "loss": float(np.mean(losses)),
                "seconds": round(time.monotonic() - started, 2),
            }
            losses.clear()
            if len(self.moments):
                point |= self.look()
                if point[config.choose_by] > best:
                    best, chosen = point[config.choose_by], step
                    self.best = {name: tensor.detach().clone() for name, tensor in self.student.trained.items()}
            curve.append(point)
            log.info(
                "planner: step %d of %d, loss %.3f, recall@1 %.4f @10 %.4f mrr %.4f, %.0f s, %.0f tokens/s",
                step, config.steps, point["loss"], point.get("novel_recall@1", math.nan),
                point.get("novel_recall@10", math.nan), point.get("mrr", math.nan), point["seconds"],
                self.tokens / training,
            )  # fmt: skip
        at_best = next(point for point in curve if point["step"] == chosen)
        return {
            "steps": config.steps,
            "chosen_step": chosen,
            "seconds": round(time.monotonic() - started, 2),
            "tokens_per_second": round(self.tokens / training, 1),
            "contexts": len(self.lessons),
            **{f"validation_{name}": value for name, value in at_best.items() if name not in ("step", "seconds")},
            "curve": curve,
        }

    def step(self, step: int) -> float:
        """One update; returns the loss in nats an answer."""
        rows = next(self.batches)
        loss = self.loss(rows)
        torch.autograd.backward(loss)
        self.masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.schedule(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.masters.write_back()
        return float(loss.detach())

    def schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        warm = max(1, round(self.config.warmup * self.config.steps))
        if step <= warm:
            return step / warm
        done = (step - warm) / max(1, self.config.steps - warm)
        return 0.05 + 0.475 * (1 + math.cos(math.pi * done))

    def loss(self, rows: np.ndarray[Any, Any]) -> Tensor:
        """Mean over the contexts: cross-entropy of the first token against the distribution, then of drawn answers."""
        backbone, config = self.student.backbone, self.config
        # Equal beginnings are read once; lessons of a batch are distinct.
        prompts = [self.codec.segments(tuple(self.lessons.contexts[row].tolist())) for row in rows]
        work = Work()
        states, cache = read_prompts(backbone, prompts, work)
        targets = self.lessons.targets[rows]  # [B, N]
        logits = backbone.logits(states)  # [B, V]
        wanted = torch.from_numpy(targets) @ self.first_of  # [B, R]
        first = logits.logsumexp(-1) - (logits[:, torch.from_numpy(self.first_tokens)] * wanted).sum(-1)
        answered = self.rng.random(len(rows)) < config.answers_share
        answered[self.rng.integers(len(rows))] = True
        drawn = [
            int(self.rng.choice(len(t), p=t / t.sum(dtype=np.float64))) for t in targets[answered].astype(np.float64)
        ]
        answers = [self.codec.answers[label] for label in drawn]
        parents = torch.from_numpy(np.flatnonzero(answered))
        states, _, packing = backbone.extend(cache, parents, answers, keep=False)
        logits = backbone.logits(states)
        following = torch.tensor([t for answer in answers for t in (*answer[1:], self.codec.end)])
        rest = torch.nn.functional.cross_entropy(logits, following, reduction="sum") / len(answers)
        self.tokens += work.prompt_tokens + len(packing.tokens)
        return first.mean() + rest

    def look(self) -> dict[str, float]:
        """Measures on the validation moments."""
        planner = Planner(self.student.backbone, self.codec, self.clusters.interface)
        return ranking(planner.scores(self.named(self.moments.contexts)), self.moments)

    @torch.no_grad()
    def restore_best(self) -> None:
        """Goes back to the chosen checkpoint."""
        for name, tensor in self.best.items():
            self.student.trained[name].copy_(tensor)
