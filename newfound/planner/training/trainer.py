"""A course of supervised fine-tuning: towards answers that are exactly descriptions, and towards what people did next.

A context was followed by different clusters for different people. What is learned where descriptions part (at the
first token) is therefore a whole distribution over next clusters, and below that the tokens of drawn answers. First
the head's rows of all tokens that descriptions are made of are fitted to the base model's states: format and taste are
then there before the first step, and the body has no need to bend for them. Then everything learns by gradient steps,
and the rows are fitted once more. Contexts of a step share what their prompts share, padding does not exist, and the
head is only computed where something is to be learned. The checkpoint is the one that ranks best on validation users'
moments.

Under torchrun the processes share the contexts of every step, the states that the head is fitted to, and the moments.
All draw the same, so that their number changes the order of sums alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newfound.compute.distributed import add_up, agree, part, rank, size, sum_gradients, take_from_first
from newfound.config import FinetuneConfig
from newfound.planner.decoding.search import CONTEXTS, Work, read_prompts
from newfound.planner.planner import Planner
from newfound.planner.prompt import PromptCodec, Tokens
from newfound.planner.training.checkpoints import Progress, load_progress, save_progress, saved_step
from newfound.planner.training.head_fit import Evidence, fit_rows, other_mass
from newfound.planner.training.trainable import MasterWeights, TrainableModel
from newfound.planner.training.training_set import TrainingSet, draw_batches, ranking
from newfound.transitions.choice_model import Choices
from newfound.types import Floats, Ints

Rows = Ints
log = logging.getLogger("newfound.planner")

START = 4  # times fewer contexts than at the end is the head fitted to before the first step
READ_ON = 0.25  # answers that the head is fitted to, a context
READ_AT_LEAST = 256  # of them in all


@dataclass(frozen=True)
class Questions:
    """Answers that are read on after some prompts.

    Args:
        hints: of all prompts, -1 where one has none.
        some: [A] which prompts.
        answers: A of them.
        states: that prompts and answers have together.
    """

    hints: Rows
    some: Rows
    answers: list[Tokens]
    states: int


class Trainer:
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
        student: TrainableModel,
        codec: PromptCodec,
        nodes: Sequence[str],
        lessons: TrainingSet,
        moments: Choices,
        config: FinetuneConfig,
        seed: int,
    ) -> None:
        self.student, self.codec, self.nodes = student, codec, list(nodes)
        self.lessons, self.moments, self.config = lessons, moments, config
        self.masters = MasterWeights(student.trained)
        take_from_first(self.masters.values.values())  # what is new in a student may have been drawn
        self.masters.write_back()
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
            self.fit_rows(config.probe_contexts // (START if config.steps else 1), whole=not config.steps)
            curve.append(self.judge(0, losses, started))
        for step in range(done.step + 1, config.steps + 1):
            tick = time.monotonic()
            losses.append(self.step(step))
            done.training += time.monotonic() - tick
            if step % config.evaluate_every == 0 and step < config.steps:
                curve.append(self.judge(step, losses, started))
            if resume is not None and step % config.save_every == 0 and rank() == 0:
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
            "hint_strength": self.lessons.hint,
            **{f"validation_{name}": value for name, value in chosen.items() if name not in ("step", "seconds")},
            "curve": curve,
        }

    def restore(self, resume: Path | None, made_of: str) -> Progress:
        """Goes on where an earlier run of this very course stopped, if there is one that every process sees."""
        found = None
        if resume is not None and agree(saved_step(resume, made_of)):
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
    def fit_rows(self, contexts: int, whole: bool = True) -> None:
        """Fits the head's rows of the descriptions' tokens to the states of so many contexts at most.

        Args:
            whole: every description is read at least once. Chance passes some by where there are many, and rows that no
                state has seen would never be said.
        """
        if self.student.rows is None:
            return
        started = time.monotonic()
        rng = np.random.default_rng([self.seed, 2])
        count = min(max(contexts, 1), len(self.lessons))
        share = self.lessons.weights.astype(np.float64)
        drawn = np.sort(rng.choice(len(self.lessons), count, replace=False, p=share / share.sum()))
        drawn = drawn[np.lexsort(self.lessons.contexts[drawn].T[::-1])]
        each = max(READ_ON, READ_AT_LEAST / count)
        blocks = [drawn[start : start + CONTEXTS] for start in range(0, count, CONTEXTS)]
        unread = set(range(len(self.codec)))
        asked = [self.ask(rows, each, rng, unread) for rows in blocks]
        if whole:
            left = rng.permutation(sorted(unread)).astype(np.int64)
            asked = [
                self.ask_all(rows, one, left[at :: len(blocks)], rng)
                for at, (rows, one) in enumerate(zip(blocks, asked, strict=True))
            ]
        states = torch.zeros(sum(one.states for one in asked), self.student.rows.shape[1])
        parts = torch.split(states, [one.states for one in asked])
        for block in range(rank(), len(blocks), size()):
            parts[block].copy_(self.read(blocks[block], asked[block]))
        add_up(states)
        if rank() == 0:
            head, targets = self.student.head(), torch.cat([*map(self.targets, blocks, asked)])
            others = other_mass(head, states.to(head.dtype), self.answer_tokens)
            with torch.enable_grad():
                start = self.masters.values["head"].detach().clone()
                fitted = fit_rows(start, Evidence(states, others, targets), self.config.probe_penalty)
            self.masters.values["head"].copy_(fitted)
        take_from_first([self.masters.values["head"]])
        self.masters.write_back()
        self.student.settle()
        log.info("planner: head fitted to %d contexts in %.0f s", count, time.monotonic() - started)

    def ask(self, rows: Rows, each: float, rng: np.random.Generator, unread: set[int]) -> Questions:
        """Which answers are read on after the prompts of some lessons, so many a context; they leave `unread`."""
        some = np.resize(rng.permutation(len(rows)), max(1, round(len(rows) * each)))
        hints = self.draw_hints(rows, rng)
        drawn = [self.draw(row) for row in rows[some]]
        unread.difference_update(drawn)
        return self.questions(hints, some, [self.codec.answers[label] for label in drawn])

    def ask_all(self, rows: Rows, asked: Questions, labels: Rows, rng: np.random.Generator) -> Questions:
        """Asks for these answers as well, each after a prompt to which it is new."""
        new = [np.flatnonzero(self.lessons.targets[rows, label]) for label in labels.tolist()]
        kept = [
            (int(rng.choice(places)), label) for places, label in zip(new, labels.tolist(), strict=True) if len(places)
        ]
        some = np.array([*asked.some.tolist(), *(place for place, _ in kept)], dtype=np.int64)
        return self.questions(asked.hints, some, [*asked.answers, *(self.codec.answers[label] for _, label in kept)])

    def questions(self, hints: Rows, some: Rows, answers: list[Tokens]) -> Questions:
        return Questions(hints, some, answers, len(hints) + sum(map(len, answers)))

    def read(self, rows: Rows, asked: Questions) -> Tensor:
        """[M, dim] states: after the prompts of some lessons, and within the answers."""
        backbone = self.student.backbone
        states, cache = read_prompts(backbone, self.prompts(rows, asked.hints), Work())
        inside, _, _ = backbone.extend(cache, torch.as_tensor(asked.some), asked.answers, keep=False)
        return torch.cat([states, inside])

    def targets(self, rows: Rows, asked: Questions) -> Tensor:
        """[M, R] probabilities of the answers' tokens that follow these states."""
        first = torch.as_tensor(self.taught(rows, asked.hints)) @ self.first_of
        return torch.cat([first, (self.following(asked.answers)[:, None] == self.answer_tokens).float()])

    def following(self, answers: Sequence[Tokens]) -> Tensor:
        """[T] what comes after each token of the answers."""
        return torch.tensor([t for answer in answers for t in (*answer[1:], self.codec.end)])

    def step(self, step: int) -> float:
        """One update; returns the loss in nats an answer."""
        rows = next(self.batches)
        hints = self.draw_hints(rows, self.rng)
        answers = [[self.codec.answers[self.draw(row)] for _ in range(self.config.answers_each)] for row in rows]
        mine = part(len(rows))
        told = torch.zeros(3, dtype=torch.float64)  # loss, tokens that were read, and that would have been
        if len(rows[mine]):
            loss, tokens, unshared = self.loss(rows[mine], hints[mine], answers[mine])
            loss = loss * (len(rows[mine]) / len(rows))
            torch.autograd.backward(loss)
            told += torch.tensor([float(loss.detach()), tokens, unshared])
        self.masters.take_gradients()
        sum_gradients(self.masters.values.values())
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["rate"] * self.schedule(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.masters.write_back()
        total, tokens, unshared = add_up(told).tolist()
        self.tokens, self.unshared = self.tokens + int(tokens), self.unshared + int(unshared)
        return float(total)

    def schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        warm = max(1, round(self.config.warmup * self.config.steps))
        if step <= warm:
            return step / warm
        done = (step - warm) / max(1, self.config.steps - warm)
        return 0.05 + 0.475 * (1 + math.cos(math.pi * done))

    def prompts(self, rows: Rows, hints: Rows) -> list[list[Tokens]]:
        """The prompts of some lessons, as segments; a hint of -1 is none."""
        contexts = self.lessons.contexts[rows].tolist()
        return [
            self.codec.segments(tuple(context), None if hint < 0 else hint)
            for context, hint in zip(contexts, hints.tolist(), strict=True)
        ]

    def draw(self, row: int) -> int:
        """An answer to write out."""
        return self.draw_new(row, self.rng)

    def draw_hints(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """What the prompts of some lessons name as a recent successor; -1 where they name none."""
        if self.lessons.hint is None:
            return np.full(len(rows), -1, dtype=np.int64)
        share = self.config.hint_share
        return np.array([self.draw_new(row, rng) if rng.random() < share else -1 for row in rows], dtype=np.int64)

    def draw_new(self, row: int, rng: np.random.Generator) -> int:
        """A cluster that may follow: half by the distribution taught, half any new one, so that none stays unknown."""
        target = self.lessons.targets[row].astype(np.float64)
        new = target > 0
        share = 0.5 * target / target.sum() + 0.5 * new / new.sum()
        return int(rng.choice(len(share), p=share / share.sum()))

    def taught(self, rows: Rows, hints: Rows) -> Floats:
        """[B, N] what follows some lessons' contexts; what a prompt hints at does so more often."""
        targets = self.lessons.targets[rows]
        hinted = np.flatnonzero(hints >= 0)
        targets[hinted, hints[hinted]] *= math.exp(self.lessons.hint or 0.0)
        targets[hinted] /= targets[hinted].sum(axis=1, keepdims=True)
        return targets

    def loss(self, rows: Rows, hints: Rows, answers: Sequence[Sequence[Tokens]]) -> tuple[Tensor, int, int]:
        """Mean over the contexts: cross-entropy of the first token against the distribution, then of drawn answers.

        Args:
            answers: of each context, equally many.

        Returns:
            The loss, the tokens that were read, and that would have been one prompt and answer at a time.
        """
        backbone, work = self.student.backbone, Work()
        prompts = self.prompts(rows, hints)
        states, cache = read_prompts(backbone, prompts, work)
        logits = self.logits(states)  # [B, V]
        wanted = torch.as_tensor(self.taught(rows, hints)) @ self.first_of  # [B, R]
        first = logits.logsumexp(-1) - (logits[:, self.answer_tokens] * wanted).sum(-1)
        parents = torch.arange(len(rows)).repeat_interleave(self.config.answers_each)
        drawn = [answer for those in answers for answer in those]
        states, _, packing = backbone.extend(cache, parents, drawn, keep=False)
        rest = torch.nn.functional.cross_entropy(self.logits(states), self.following(drawn), reduction="sum")
        read = len(packing.tokens)
        whole = sum(len(segment) for prompt in prompts for segment in prompt) * self.config.answers_each
        return first.mean() + rest / len(drawn), work.prompt_tokens + read, whole + read

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
        mine = part(len(self.moments))
        scores = np.zeros((len(self.moments), len(self.nodes)), dtype=np.float32)
        scores[mine] = planner.scores(self.named(self.moments.contexts[mine]))
        add_up(torch.from_numpy(scores))
        return ranking(scores, self.moments)

    @torch.no_grad()
    def restore_best(self) -> None:
        """Goes back to the chosen checkpoint."""
        for name, tensor in self.best.items():
            self.student.trained[name].copy_(tensor)
        self.student.settle()


def answer_tokens(codec: PromptCodec) -> Tensor:
    """[R] the distinct tokens that answers are made of, their end included, sorted."""
    return torch.tensor(sorted({codec.end, *(token for answer in codec.answers for token in answer)}))
