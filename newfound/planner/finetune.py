"""Supervised fine-tuning: towards answers that are exactly descriptions, and towards what people did next.

A context was followed by different clusters for different people. What is learned where descriptions part (at the
first token) is therefore a whole distribution over next clusters, and below that the tokens of drawn answers. First
the head's rows of all tokens that descriptions are made of are fitted to the base model's states: format and taste are
then there before the first step, and the body has no need to bend for them. Then everything learns by gradient steps,
and the rows are fitted once more. Contexts of a step share what their prompts share, padding does not exist, and the
head is only computed where something is to be learned. The checkpoint is the one that ranks best on validation users'
moments.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from newfound.choice import Choices
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig, PlannerConfig
from newfound.planner.alignment import fit_alignment
from newfound.planner.backbone import LeanBackbone, TransformersBackbone, end_token, load_backbone
from newfound.planner.checkpoints import Progress, identity, load_progress, save_progress
from newfound.planner.decoding import CONTEXTS, Work, read_prompts
from newfound.planner.lessons import Lessons, draw_batches, ranking, read_choices, read_lessons, sample
from newfound.planner.planner import Planner
from newfound.planner.pretrained import base_model
from newfound.planner.probe import Evidence, fit_rows, other_mass
from newfound.planner.prompt import PromptCodec, Tokens, load_tokenizer
from newfound.planner.students import LeanStudent, Masters, Student, TransformersStudent

Rows = npt.NDArray[np.int64]
log = logging.getLogger("newfound.planner")

RECORD = "training.json"
START = 4  # times fewer contexts than at the end is the head fitted to before the first step
READ_ON = 0.25  # answers that the head is fitted to, a context
READ_AT_LEAST = 256  # of them in all


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
        Where descriptions are made of item ids, a language model has nothing to read: the folder then holds a record
        alone, and the table comes from pair frequencies.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if not Clusters.load(clusters).has_words:
        log.warning("planner: needs text or categories, and the items have none; the table will be pair frequencies")
        return _leave_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        part = Path(place) / "planner"
        part.mkdir()
        base = init if init is not None else base_model(config.model, Path(place) / "base")
        loaded = Clusters.load(clusters)
        lessons = read_lessons(transitions, loaded, config.finetune, seed)
        moments = sample(read_choices(transitions, loaded, "validation"), config.finetune.evaluation_contexts, seed)
        backbone = load_backbone(base, config.precision)
        codec = PromptCodec(load_tokenizer(base), loaded.descriptions, end_token(base))
        student: Student
        if isinstance(backbone, LeanBackbone):
            student = LeanStudent(backbone.model, config.finetune, seed, answer_tokens(codec))
        else:
            assert isinstance(backbone, TransformersBackbone)
            student = TransformersStudent(backbone, config.finetune)
        course = Course(student, codec, loaded.interface, lessons, moments, config.finetune, seed)
        resume = out.with_name(f".{out.name}.resume")
        made_of = identity(planner_inputs(base, loaded, transitions), config.model_dump(), seed)
        record = course.run(resume if config.finetune.save_every else None, made_of)
        course.restore_best()
        planner = Planner(student.backbone, codec, loaded.interface)
        asked = moments.contexts[: config.match_rate_contexts]
        record["match_rate"] = planner.match_rate(course.named(asked)) if len(asked) else 1.0
        log.info("planner: match rate %.3f over %d contexts", record["match_rate"], len(asked))
        student.save(base, part)
        codec.save(part)
        alignment, worth = fit_alignment(transitions, loaded, lambda contexts: planner.scores(course.named(contexts)))
        alignment.save(part)
        record |= worth
        record["clusters"] = loaded.digest
        record["init"] = "planner" if init is not None else "base model"
        record["method"] = config.finetune.method
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
        shutil.rmtree(resume, ignore_errors=True)
    return {name: value for name, value in record.items() if isinstance(value, float | int | str)}


def _leave_out(out: Path) -> dict[str, Any]:
    """A planner's folder without a planner."""
    record = {"steps": 0, "left_out": "the items have neither text nor categories"}
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        part = Path(place) / "planner"
        part.mkdir()
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        part.rename(out)
    return record


class Course:
    """One run of training.

    Args:
        student: what learns.
        codec: the prompt.
        nodes: interface clusters, in the codec's order.
        lessons: what is taught.
        moments: by which the checkpoint is chosen; where there are none, the last one is taken.
    """

    def __init__(
        self,
        student: Student,
        codec: PromptCodec,
        nodes: Sequence[str],
        lessons: Lessons,
        moments: Choices,
        config: FinetuneConfig,
        seed: int,
    ) -> None:
        self.student, self.codec, self.nodes = student, codec, list(nodes)
        self.lessons, self.moments, self.config = lessons, moments, config
        self.masters = Masters(student.trained)
        body = [value for name, value in self.masters.values.items() if name != "head"]
        groups = [{"params": body, "rate": 1.0}]
        if student.rows is not None:
            groups.append({"params": [self.masters.values["head"]], "rate": config.head_rate})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
        self.batches = draw_batches(lessons, config.batch_size, config.share_first, seed)
        self.rng = np.random.default_rng([seed, 1])
        self.answer_tokens = answer_tokens(codec)
        place = torch.searchsorted(self.answer_tokens, torch.tensor([answer[0] for answer in codec.answers]))
        self.first_of = torch.eye(len(self.answer_tokens))[place]  # [N, R]
        self.seed = seed
        self.best: dict[str, Tensor] = {}
        self.record = -math.inf
        self.tokens = 0  # that were read
        self.unshared = 0  # that would have been read one prompt and answer at a time

    def named(self, contexts: Rows) -> list[tuple[str, ...]]:
        """Contexts of indices as contexts of cluster ids."""
        return [tuple(self.nodes[c] for c in row) for row in contexts.tolist()]

    def run(self, resume: Path | None = None, made_of: str = "") -> dict[str, Any]:
        """Trains; returns the record with its curve.

        Args:
            resume: folder to which the state is saved every `save_every` steps, and from which it goes on.
            made_of: digest of what the course depends on; a state of another one is left alone.
        """
        config, started = self.config, time.monotonic()
        done = self.restore(resume, made_of)
        curve, losses = done.curve, done.losses
        if config.probe_contexts and not done.step:
            # Where steps follow, a start is enough.
            self.fit_rows(config.probe_contexts // (START if config.steps else 1))
            curve.append(self.judge(0, losses, started))
        for step in range(done.step + 1, config.steps + 1):
            tick = time.monotonic()
            losses.append(self.step(step))
            done.training += time.monotonic() - tick
            if step % config.evaluate_every == 0 and step < config.steps:
                curve.append(self.judge(step, losses, started))
            if resume is not None and step % config.save_every == 0:
                done.step, done.tokens, done.unshared = step, self.tokens, self.unshared
                done.record = self.record if self.best else None
                done.draws = dict(self.rng.bit_generator.state)
                save_progress(resume, made_of, done, self.masters.values, self.best, self.optimizer)
        if config.steps or not config.probe_contexts:
            if config.probe_contexts:
                self.fit_rows(config.probe_contexts)
            curve.append(self.judge(config.steps, losses, started))
        # Before the first of several steps, answers are no descriptions yet.
        able = [point for point in curve if point["step"] > 0 or not config.steps]
        chosen = max(able, key=lambda point: point.get(config.choose_by, point["step"]))
        return {
            "steps": config.steps,
            "chosen_step": int(chosen["step"]),
            "seconds": round(time.monotonic() - started, 2),
            "tokens_per_second": round(self.tokens / max(done.training, 1e-9), 1),
            "prompt_tokens_per_second": round(self.unshared / max(done.training, 1e-9), 1),
            "contexts": len(self.lessons),
            **{f"validation_{name}": value for name, value in chosen.items() if name not in ("step", "seconds")},
            "curve": curve,
        }

    def restore(self, resume: Path | None, made_of: str) -> Progress:
        """Goes on where an earlier run of this very course stopped, if there is one."""
        found = None
        if resume is not None:
            found = load_progress(resume, made_of, self.masters.values, self.best, self.optimizer)
        if found is None:
            return Progress()
        self.masters.write_back()
        self.student.settle()
        self.record = -math.inf if found.record is None else found.record
        self.tokens, self.unshared = found.tokens, found.unshared
        self.rng.bit_generator.state = found.draws
        for _ in range(found.step):
            next(self.batches)
        log.info("planner: goes on after step %d", found.step)
        return found

    def judge(self, step: int, losses: list[float], started: float) -> dict[str, float]:
        """A point of the curve; keeps the checkpoint if it is the best so far."""
        point = {"step": float(step), "seconds": round(time.monotonic() - started, 2)}
        if losses:
            point["loss"] = float(np.mean(losses))
            losses.clear()
        if len(self.moments):
            point |= self.look()
            if (step or not self.config.steps) and point[self.config.choose_by] > self.record:
                self.record = point[self.config.choose_by]
                self.best = {name: tensor.detach().clone() for name, tensor in self.student.trained.items()}
        log.info(
            "planner: step %d of %d, loss %.3f, recall@1 %.4f @10 %.4f mrr %.4f, %.0f s",
            step, self.config.steps, point.get("loss", math.nan), point.get("novel_recall@1", math.nan),
            point.get("novel_recall@10", math.nan), point.get("mrr", math.nan), point["seconds"],
        )  # fmt: skip
        return point

    @torch.no_grad()
    def fit_rows(self, contexts: int) -> None:
        """Fits the head's rows of the descriptions' tokens to the states of so many contexts at most."""
        if self.student.rows is None:
            return
        started = time.monotonic()
        rng = np.random.default_rng([self.seed, 2])
        size = min(max(contexts, 1), len(self.lessons))
        share = self.lessons.weights.astype(np.float64)
        drawn = np.sort(rng.choice(len(self.lessons), size, replace=False, p=share / share.sum()))
        drawn = drawn[np.lexsort(self.lessons.contexts[drawn].T[::-1])]
        each = max(READ_ON, READ_AT_LEAST / size)
        found = [self.evidence(drawn[start : start + CONTEXTS], each, rng) for start in range(0, size, CONTEXTS)]
        states, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
        others = other_mass(self.student.head(), states, self.answer_tokens)
        evidence = Evidence(states.float(), others, targets)
        with torch.enable_grad():
            fitted = fit_rows(self.masters.values["head"].detach().clone(), evidence, self.config.probe_penalty)
        self.masters.values["head"].copy_(fitted)
        self.masters.write_back()
        self.student.settle()
        log.info("planner: head fitted to %d contexts in %.0f s", size, time.monotonic() - started)

    def evidence(self, rows: Rows, each: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """States of some lessons with what follows: after the prompts, and within answers, so many a context.

        Returns:
            [M, dim] states, and [M, R] probabilities of the answers' tokens.
        """
        backbone = self.student.backbone
        states, cache = read_prompts(backbone, self.prompts(rows), Work())
        some = np.resize(rng.permutation(len(rows)), max(1, round(len(rows) * each)))
        answers = [self.codec.answers[self.draw(row)] for row in rows[some]]
        inside, _, _ = backbone.extend(cache, torch.from_numpy(some), answers, keep=False)
        following = torch.tensor([t for answer in answers for t in (*answer[1:], self.codec.end)])
        targets = torch.cat(
            [
                torch.from_numpy(self.lessons.targets[rows]) @ self.first_of,
                (following[:, None] == self.answer_tokens).float(),
            ]
        )
        return torch.cat([states, inside]), targets

    def step(self, step: int) -> float:
        """One update; returns the loss in nats an answer."""
        rows = next(self.batches)
        loss = self.loss(rows)
        torch.autograd.backward(loss)
        self.masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["rate"] * self.schedule(step)
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

    def prompts(self, rows: Rows) -> list[list[Tokens]]:
        """The prompts of some lessons, as segments."""
        return [self.codec.segments(tuple(self.lessons.contexts[row].tolist())) for row in rows]

    def draw(self, row: int) -> int:
        """An answer to write out: half by the distribution taught, half any new cluster, so that none stays unknown."""
        target = self.lessons.targets[row].astype(np.float64)
        new = target > 0
        share = 0.5 * target / target.sum() + 0.5 * new / new.sum()
        return int(self.rng.choice(len(share), p=share / share.sum()))

    def loss(self, rows: Rows) -> Tensor:
        """Mean over the contexts: cross-entropy of the first token against the distribution, then of drawn answers."""
        backbone, work = self.student.backbone, Work()
        prompts = self.prompts(rows)
        states, cache = read_prompts(backbone, prompts, work)
        logits = self.logits(states)  # [B, V]
        wanted = torch.from_numpy(self.lessons.targets[rows]) @ self.first_of  # [B, R]
        first = logits.logsumexp(-1) - (logits[:, self.answer_tokens] * wanted).sum(-1)
        parents = torch.arange(len(rows)).repeat_interleave(self.config.answers_each)
        answers = [self.codec.answers[self.draw(rows[parent])] for parent in parents.tolist()]
        states, _, packing = backbone.extend(cache, parents, answers, keep=False)
        logits = self.logits(states)
        following = torch.tensor([t for answer in answers for t in (*answer[1:], self.codec.end)])
        rest = torch.nn.functional.cross_entropy(logits, following, reduction="sum") / len(answers)
        self.tokens += work.prompt_tokens + len(packing.tokens)
        whole = [sum(map(len, prompt)) for prompt in prompts]
        self.unshared += sum(whole[parent] for parent in parents.tolist()) + len(packing.tokens)
        return first.mean() + rest

    def logits(self, states: Tensor) -> Tensor:
        """[T, V] float32, with the head's rows as they are being learned."""
        logits = self.student.backbone.logits(states)
        if self.student.rows is None:
            return logits
        return logits.index_copy(1, self.answer_tokens, (states @ self.student.rows.T).float())

    def look(self) -> dict[str, float]:
        """Measures on the validation moments."""
        self.student.settle()
        planner = Planner(self.student.backbone, self.codec, self.nodes)
        return ranking(planner.scores(self.named(self.moments.contexts)), self.moments)

    @torch.no_grad()
    def restore_best(self) -> None:
        """Goes back to the chosen checkpoint."""
        for name, tensor in self.best.items():
            self.student.trained[name].copy_(tensor)
        self.student.settle()


def planner_inputs(base: Path, clusters: Clusters, transitions: Path) -> dict[str, str]:
    """Digests of what a course learns from."""
    lessons = hashlib.sha256((transitions / "balanced.parquet").read_bytes())
    lessons.update((transitions / "transitions.parquet").read_bytes())
    weights = sorted((file.name, file.stat().st_size) for file in base.glob("model*.safetensors"))
    return {"clusters": clusters.digest, "transitions": lessons.hexdigest(), "base": json.dumps(weights)}


def answer_tokens(codec: PromptCodec) -> Tensor:
    """[R] the distinct tokens that answers are made of, their end included, sorted."""
    return torch.tensor(sorted({codec.end, *(token for answer in codec.answers for token in answer)}))
