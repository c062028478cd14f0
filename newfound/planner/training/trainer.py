"""Supervised fine-tuning, towards answers that are exactly descriptions and towards what people did next.

A context was followed by different clusters for different people. What is learned where descriptions part (at the
first token) is therefore a whole distribution over next clusters, and below that the tokens of drawn answers. First
the head's rows of all tokens that descriptions are made of are fitted to the base model's states: format and taste are
then there before the first step, and the body has no need to bend for them. Then everything learns by gradient steps,
and the rows are fitted once more. Contexts of a step share what their prompts share, padding does not exist, and the
head is only computed where something is to be learned. The checkpoint is the one that ranks best on validation users'
choices.

Under torchrun the processes share the contexts of every step, the states that the head is fitted to, and the validation
choices. All draw the same, so that their number changes the order of sums alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from newfound.compute.distributed import add_up, agree, part, rank, sum_gradients, take_from_first
from newfound.config import FinetuneConfig
from newfound.planner.decoding.search import Work, read_prompts
from newfound.planner.planner import Planner
from newfound.planner.prompt import PromptCodec, Tokens
from newfound.planner.training.checkpoints import Progress, load_progress, save_progress, saved_step
from newfound.planner.training.examples import Examples
from newfound.planner.training.head_fit import HeadData, fit_rows, other_mass
from newfound.planner.training.head_states import HeadStates
from newfound.planner.training.trainable import MasterWeights, TrainableModel
from newfound.planner.training.training_set import TrainingSet, draw_batches
from newfound.planner.training.validation import validation_measures
from newfound.transitions.choice_model import Choices
from newfound.types import Context, Ints

log = logging.getLogger("newfound.planner")

FIRST_FIT: Final = 4  # times fewer contexts than at the end is the head fitted to before the first step
SHOWN: Final = ("loss", "novel_recall@1", "novel_recall@10", "mrr")  # of a point of the curve, in the log


class Trainer:
    """One training run.

    Args:
        model: what learns.
        codec: the prompt.
        nodes: interface clusters, in the codec's order.
        data: the training set.
        validation: choices by which the checkpoint is chosen; where there are none, the last one is taken.
        config: of the training.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        model: TrainableModel,
        codec: PromptCodec,
        nodes: Sequence[str],
        data: TrainingSet,
        validation: Choices,
        config: FinetuneConfig,
        seed: int,
    ) -> None:
        self.model, self.codec, self.nodes = model, codec, list(nodes)
        self.data, self.validation, self.config = data, validation, config
        self.masters = MasterWeights(model.trained)
        take_from_first(self.masters.values.values())  # what is new in a trainable model may have been drawn
        self.masters.write_back()
        body = [value for name, value in self.masters.values.items() if name != "head"]
        groups = [{"params": body, "rate": 1.0}]
        if model.rows is not None:
            groups.append({"params": [self.masters.values["head"]], "rate": config.head_rate})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
        self.batches = draw_batches(data, config.batch_size, config.share_first, seed)
        self.examples = Examples(data, codec, config.hint_share, seed)
        self.seed = seed
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}  # weights of the best checkpoint

    def run(self, resume: Path | None = None, inputs: str = "") -> dict[str, Any]:
        """Trains; returns the record with its curve.

        Args:
            resume: folder to which the state is saved every `save_every` steps, and from which it goes on.
            inputs: digest of what the run depends on; a state of another one is left alone.
        """
        config, started = self.config, time.monotonic()
        progress = self.progress = self.restore(resume, inputs)
        if config.probe_contexts and not progress.step:
            # Where steps follow, a start is enough.
            self.fit_head(config.probe_contexts // (FIRST_FIT if config.steps else 1), not config.steps)
            self.evaluate(0, started)
        for step in range(progress.step + 1, config.steps + 1):
            tick = time.monotonic()
            progress.losses.append(self.step(step))
            progress.training_seconds += time.monotonic() - tick
            if step % config.evaluate_every == 0 and step < config.steps:
                self.evaluate(step, started)
            if resume is not None and step % config.save_every == 0 and rank() == 0:
                progress.step, progress.rng = step, dict(self.examples.rng.bit_generator.state)
                save_progress(resume, inputs, progress, self.masters.values, self.best, self.optimizer)
        if config.steps or not config.probe_contexts:
            if config.probe_contexts:
                self.fit_head(config.probe_contexts, every_description=True)
            self.evaluate(config.steps, started)
        return self._record(time.monotonic() - started)

    def _record(self, seconds: float) -> dict[str, Any]:
        config, progress = self.config, self.progress
        # Before the first of several steps, answers are no descriptions yet.
        able = [point for point in progress.curve if point["step"] > 0 or not config.steps]
        chosen = max(able, key=lambda point: point.get(config.choose_by, point["step"]))
        training_seconds = max(progress.training_seconds, 1e-9)
        return {
            "steps": config.steps,
            "chosen_step": int(chosen["step"]),
            "seconds": round(seconds, 2),
            "tokens_per_second": round(progress.tokens / training_seconds, 1),
            "prompt_tokens_per_second": round(progress.unshared_tokens / training_seconds, 1),
            "contexts": len(self.data),
            "hint_strength": self.data.hint_boost,
            **{f"validation_{name}": value for name, value in chosen.items() if name not in ("step", "seconds")},
            "curve": progress.curve,
        }

    def restore(self, resume: Path | None, inputs: str) -> Progress:
        """Goes on where an earlier run of the very same inputs stopped, if there is one that every process sees."""
        found = None
        if resume is not None and agree(saved_step(resume, inputs)):
            found = load_progress(resume, inputs, self.masters.values, self.best, self.optimizer)
        if found is None:
            return Progress()
        self.masters.write_back()
        self.model.update_backbone()
        self.examples.rng.bit_generator.state = found.rng
        for _ in range(found.step):
            next(self.batches)
        log.info("planner: goes on after step %d", found.step)
        return found

    # --- validation -------------------------------------------------------------------------------------------------

    def evaluate(self, step: int, started: float) -> None:
        """Adds a point to the curve; keeps the checkpoint if it is the best so far."""
        progress, choose_by = self.progress, self.config.choose_by
        point = {"step": float(step), "seconds": round(time.monotonic() - started, 2)}
        if progress.losses:
            point["loss"] = float(np.mean(progress.losses))
            progress.losses.clear()
        if len(self.validation):
            point |= self.measure()
            if (step or not self.config.steps) and (progress.best is None or point[choose_by] > progress.best):
                progress.best = point[choose_by]
                self.best = {name: tensor.detach().clone() for name, tensor in self.model.trained.items()}
        shown = "".join(f"{name} {point[name]:.4f}, " for name in SHOWN if name in point)
        log.info("planner: step %d of %d, %s%.0f s", step, self.config.steps, shown, point["seconds"])
        progress.curve.append(point)

    def measure(self) -> dict[str, float]:
        """Measures on the validation choices."""
        self.model.update_backbone()
        planner = Planner(self.model.backbone, self.codec, self.nodes)
        mine = part(len(self.validation))
        scores = np.zeros((len(self.validation), len(self.nodes)), dtype=np.float32)
        scores[mine] = planner.scores(self.contexts_of(self.validation.contexts[mine]))
        add_up(torch.from_numpy(scores))
        return validation_measures(scores, self.validation)

    def contexts_of(self, indices: Ints) -> list[Context]:
        """Contexts of cluster indices, [B, K], as contexts of cluster ids."""
        return [tuple(self.nodes[c] for c in row) for row in indices.tolist()]

    @torch.no_grad()
    def restore_best(self) -> None:
        """Goes back to the chosen checkpoint."""
        for name, tensor in self.best.items():
            self.model.trained[name].copy_(tensor)
        self.model.update_backbone()

    # --- the head alone ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_head(self, contexts: int, every_description: bool) -> None:
        """Fits the head's rows of the descriptions' tokens to the states of so many contexts at most."""
        rows = self.model.rows
        if rows is None:
            return
        started = time.monotonic()
        sampler = HeadStates(self.model.backbone, self.examples, rows.shape[1], self.seed)
        blocks = sampler.draw_blocks(contexts, every_description)
        states = sampler.read(blocks)
        if rank() == 0:
            head = self.model.head()
            others = other_mass(head, states.to(head.dtype), self.examples.answer_tokens)
            with torch.enable_grad():
                start = self.masters.values["head"].detach().clone()
                fitted = fit_rows(start, HeadData(states, others, sampler.targets(blocks)), self.config.probe_penalty)
            self.masters.values["head"].copy_(fitted)
        take_from_first([self.masters.values["head"]])
        self.masters.write_back()
        self.model.update_backbone()
        count = sum(len(block.rows) for block in blocks)
        log.info("planner: head fitted to %d contexts in %.0f s", count, time.monotonic() - started)

    # --- gradient steps ---------------------------------------------------------------------------------------------

    def step(self, step: int) -> float:
        """One update; returns the loss in nats an answer."""
        rows = next(self.batches)
        hints = self.examples.draw_hints(rows, self.examples.rng)
        answers = [
            [self.codec.answers[self.examples.draw_answer(row)] for _ in range(self.config.answers_each)]
            for row in rows
        ]
        mine = part(len(rows))
        sums = torch.zeros(3, dtype=torch.float64)  # loss, tokens, unshared tokens
        if len(rows[mine]):
            loss, tokens, unshared = self.loss(rows[mine], hints[mine], answers[mine])
            loss = loss * (len(rows[mine]) / len(rows))
            torch.autograd.backward(loss)
            sums += torch.tensor([float(loss.detach()), tokens, unshared])
        self.masters.take_gradients()
        sum_gradients(self.masters.values.values())
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["rate"] * self.schedule(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.masters.write_back()
        total, tokens, unshared = add_up(sums).tolist()
        self.progress.tokens += int(tokens)
        self.progress.unshared_tokens += int(unshared)
        return float(total)

    def schedule(self, step: int) -> float:
        """Share of the learning rate: linear warm-up, then a cosine down to a twentieth."""
        warm = max(1, round(self.config.warmup * self.config.steps))
        if step <= warm:
            return step / warm
        done = (step - warm) / max(1, self.config.steps - warm)
        return 0.05 + 0.475 * (1 + math.cos(math.pi * done))

    def loss(self, rows: Ints, hints: Ints, answers: Sequence[Sequence[Tokens]]) -> tuple[Tensor, int, int]:
        """Mean over the contexts: cross-entropy of the first token against the distribution, then of drawn answers.

        Args:
            rows: B contexts of the training set.
            hints: [B], or `NO_HINT`.
            answers: of each context, equally many.

        Returns:
            The loss, the tokens that were read, and that would have been one prompt and answer at a time.
        """
        backbone, work = self.model.backbone, Work()
        prompts = self.examples.prompts(rows, hints)
        states, cache = read_prompts(backbone, prompts, work)
        logits = self.logits(states)  # [B, V]
        targets = self.examples.first_token_targets(rows, hints)  # [B, R]
        first = logits.logsumexp(-1) - (logits[:, self.examples.answer_tokens] * targets).sum(-1)
        parents = torch.arange(len(rows)).repeat_interleave(self.config.answers_each)
        drawn = [answer for those in answers for answer in those]
        states, _, packing = backbone.extend(cache, parents, drawn, keep=False)
        following = self.examples.next_tokens(drawn)
        rest = torch.nn.functional.cross_entropy(self.logits(states), following, reduction="sum")
        read = len(packing.tokens)
        whole = sum(len(segment) for prompt in prompts for segment in prompt) * self.config.answers_each
        return first.mean() + rest / len(drawn), work.prompt_tokens + read, whole + read

    def logits(self, states: Tensor) -> Tensor:
        """[T, V] float32, with the head's rows as they are being learned."""
        logits = self.model.backbone.logits(states)
        if self.model.rows is None:
            return logits
        return logits.index_copy(1, self.examples.answer_tokens, (states @ self.model.rows.T).float())
