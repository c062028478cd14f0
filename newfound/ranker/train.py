"""Training of the ranker, from integer sequences or from the pipeline's artifacts.

`fit` is independent of any data set: a sequence is a list of integers. It holds out every sequence's last item, trains
on the rest and keeps the epoch whose held-out NDCG@10 is best.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from newfound.compute.allocator import keep_freed_memory
from newfound.compute.distributed import add_up, on_accelerator, rank, share, size, sum_gradients
from newfound.config import RankerConfig
from newfound.files import new_file
from newfound.ranker.data import Sequences, epoch_batches
from newfound.ranker.losses import full_softmax, sampled_softmax
from newfound.ranker.model import SequenceModel
from newfound.ranker.validation import figures, held_out_users, rank_held_out
from newfound.types import Ints

log = logging.getLogger("newfound.ranker")

ALL_ITEMS: Final = (
    50_000  # catalogues up to this size are trained against every item, unless `negatives` says otherwise
)
SHARED_NEGATIVES: Final = 8192  # drawn for a batch of larger ones
WARM_UP: Final = 100  # steps, a twentieth of all where that is less
LEAST_STEPS: Final = 25  # an epoch
LEAST_TOKENS: Final = 256  # a batch
VALIDATED: Final = 10_000  # users at most by whom an epoch is chosen
CHECKPOINT: Final = "checkpoint.safetensors"
Watch = Callable[[int, dict[str, float]], bool]


@dataclass
class Fit:
    """A trained model and how it came to be.

    Attributes:
        model: in evaluation mode, at the chosen epoch; its parameters are averages over the last steps before its end.
        epoch: the chosen epoch, counted from 1.
        ndcg: its NDCG@10 on the held-out items; 0 where nothing was held out.
        hit_rate: its HR@10 on them.
        curve: one record an epoch.
        seconds: of training and validation, summed over resumed parts.
    """

    model: SequenceModel
    epoch: int = 0
    ndcg: float = 0.0
    hit_rate: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    sequences: Sequences,
    items: int,
    config: RankerConfig,
    seed: int,
    *,
    text: Tensor | None = None,
    hold_out: bool = True,
    epochs: int | None = None,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Fit:
    """Trains on integer sequences, on a GPU where there is one; the model that is returned lies on the processor.

    Under `torch.distributed`, every process takes its share of each batch and gradients are summed.

    Args:
        sequences: items as 0 .. items - 1, oldest first.
        items: number of items.
        config: model and training.
        seed: everything random is drawn from it, each epoch anew, so that a resumed run goes on bit for bit
            (on a processor: a GPU adds up in no fixed order).
        text: float32 text vectors [items, text dim], where items have text.
        hold_out: choose the epoch on each sequence's last item; otherwise train on all of it.
        epochs: stop after so many, with the learning rate still falling as `config.epochs` says.
        folder: keep a checkpoint there after each epoch, and go on from the one that is there.
        watch: called after each epoch with its number and record; True ends the training.
    """
    keep_freed_memory()
    with on_accelerator():
        torch.manual_seed(seed)
        train, targets = sequences.drop_last(least=3) if hold_out else (sequences, None)
        device = torch.get_default_device()
        with torch.device("cpu"):  # the same start on every device
            known = torch.full((items,), text is None)
            known[torch.from_numpy(train.items)] = True
            model = SequenceModel(items, config, text, known)
        model.to(device)
        run = _Run(model, config, train, seed)
        result = Fit(run.average)
        best: dict[str, Tensor] = {}
        done = _resume(folder, run, result, best) if folder else 0
        for epoch in range(done, epochs or config.epochs):
            if result.ndcg > 0 and epoch - result.epoch >= config.patience:
                break
            record = _epoch(run, epoch, targets)
            result.seconds += record["seconds"]
            result.curve.append(record)
            if targets is None or record["ndcg@10"] > result.ndcg or not best:
                result.epoch = epoch + 1
                result.ndcg, result.hit_rate = record.get("ndcg@10", 0.0), record.get("hr@10", 0.0)
                best = {name: value.detach().clone() for name, value in result.model.state_dict().items()}
            if folder:
                _keep(folder, run, result, best)
            if watch and watch(epoch + 1, record):
                break
        if best:
            result.model.load_state_dict(best)
    result.model.to("cpu").eval()
    return result


def _epoch(run: _Run, epoch: int, targets: Ints | None) -> dict[str, float]:
    """One epoch and, where items were held out, its validation; returns and logs its record."""
    started = time.perf_counter()
    record = {"epoch": epoch + 1, **run.epoch(epoch)}
    if targets is not None:
        record |= validate(run.average, run.data, targets)
    record["seconds"] = time.perf_counter() - started
    shown = f", validation NDCG@10 {record['ndcg@10']:.4f}" if targets is not None else ""
    of = run.config.epochs
    log.info("epoch %d of %d: loss %.4f%s, %.1f s", epoch + 1, of, record["loss"], shown, record["seconds"])
    return record


def validate(model: SequenceModel, past: Sequences, targets: Ints) -> dict[str, float]:
    """NDCG@10 and HR@10 of held-out items among all, those of the past filtered; processes share the users.

    Of more than `VALIDATED` users so many are asked, the same in every epoch and process.
    """
    model.eval()
    users = held_out_users(past, targets)
    if len(users) > VALIDATED:
        users = np.sort(np.random.default_rng(0).choice(users, VALIDATED, replace=False))
    return figures(rank_held_out(model, past, targets, users))


class _Run:
    """The moving parts of a training: model, optimiser, and one pass over the data."""

    def __init__(self, model: SequenceModel, config: RankerConfig, train: Sequences, seed: int) -> None:
        self.model, self.config, self.data, self.seed = model, config, train, seed
        # Its own parameters; the text vectors, which may be large, are those of the trained model.
        self.average = copy.deepcopy(model, {id(model.text): model.text}).eval() if config.average_epochs else model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.step = 0
        targets = max(1, int((train.lengths - 1).clip(0).sum()))
        # Small data would be seen in a handful of steps; they get smaller batches.
        self.tokens = min(config.batch_tokens, max(LEAST_TOKENS, targets // LEAST_STEPS))
        per_epoch = math.ceil(targets / self.tokens)
        self.steps = per_epoch * config.epochs  # about: padding makes a few more
        self.horizon = max(1.0, config.average_epochs * per_epoch)
        known = model.known.nonzero()[:, 0]
        self.known = known if len(known) < len(model.known) else None
        self.place = model.known.long().cumsum(0) - 1  # item -> its row among the known
        wanted = config.negatives
        if wanted is None:
            wanted = 0 if len(known) <= ALL_ITEMS else SHARED_NEGATIVES
        self.negatives = wanted if wanted < len(known) else 0
        # Of their own, so that processes, whose dropout takes other numbers, draw the same ones.
        self.draws = torch.Generator()

    def epoch(self, number: int) -> dict[str, float]:
        """One pass; returns the mean loss and the targets seen."""
        model, config = self.model, self.config
        model.train()
        torch.manual_seed((self.seed * 1_000_003 + number) * size() + rank())  # each process its masks
        self.draws.manual_seed(self.seed * 1_000_003 + number)
        total = seen = 0.0
        for batch in epoch_batches(self.data, config.max_length, self.tokens, (self.seed, number)):
            rows = torch.as_tensor(batch)
            real = int((rows[:, 1:] >= 0).sum())
            mine, negatives = rows[rank() :: size()], self._draw()
            loss = self._loss(mine, negatives) * ((mine[:, 1:] >= 0).sum() / real) if len(mine) else None
            self.optimizer.zero_grad(set_to_none=False)
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
            sum_gradients(p for p in model.parameters() if p.requires_grad)
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * self._schedule()
            self.optimizer.step()
            self.step += 1
            self._average()
            total += float(loss.detach()) * real if loss is not None else 0.0
            seen += real
        total = float(add_up(torch.tensor([total], dtype=torch.float64)))
        return {"loss": total / max(seen, 1), "targets": seen}

    def _draw(self) -> Tensor | None:
        """Negatives of a batch, the same in every process; None: every item is one."""
        if not self.negatives:
            return None
        known = len(self.model.known) if self.known is None else len(self.known)
        drawn = torch.randint(known, (self.negatives,), generator=self.draws, device="cpu")
        found: Tensor = drawn.unique().to(self.model.known.device)  # type: ignore[no-untyped-call]
        return found

    def _loss(self, rows: Tensor, negatives: Tensor | None) -> Tensor:
        inputs, targets = rows[:, :-1], rows[:, 1:]  # [B, L]
        real = targets >= 0
        encoder = self.model.encoder
        vectors = self.model.item_vectors()
        queries = encoder.query(encoder.hidden(vectors, inputs)[real])  # [T, dim]
        wanted = targets[real]
        if self.known is not None:
            vectors, wanted = vectors[self.known], self.place[wanted]
        if negatives is None:
            return full_softmax(queries, vectors, wanted)
        return sampled_softmax(queries, vectors, wanted, negatives)

    def _schedule(self) -> float:
        """Linear warm-up, then half a cosine down to nothing."""
        falling = 0.5 * (1 + math.cos(math.pi * min(self.step / self.steps, 1.0)))
        rising = (self.step + 1) / max(1, min(WARM_UP, self.steps // 20))
        return min(1.0, rising) * max(falling, 0.01)

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the averaged model towards the trained one; the first steps count alike."""
        if self.average is not self.model:
            share = 1 / min(self.step, self.horizon)
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next epoch depends on, by name."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average is not self.model:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        self.step = step
        for model, prefix in ((self.model, "model."), (self.average, "average.")):
            if part := {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}:
                model.load_state_dict(part)
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: tensors[f"optimizer.{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }


def _keep(folder: Path, run: _Run, result: Fit, best: dict[str, Tensor]) -> None:
    """One file, so that tensors and record always belong together; only the first process writes."""
    if rank():
        return
    tensors = run.state() | {f"best.{name}": value for name, value in best.items()}
    record = {
        "config": run.config.model_dump_json(),
        "seed": run.seed,
        "step": run.step,
        "epoch": result.epoch,
        "ndcg": result.ndcg,
        "hit_rate": result.hit_rate,
        "seconds": result.seconds,
        "curve": result.curve,
    }
    with new_file(folder / CHECKPOINT) as file:
        save_file({name: value.contiguous() for name, value in tensors.items()}, file, {"record": json.dumps(record)})


def _resume(folder: Path, run: _Run, result: Fit, best: dict[str, Tensor]) -> int:
    """Loads the checkpoint, if there is one of this very configuration; returns how many epochs are done.

    The first process reads it for all: another machine has no such file, or an older one.
    """
    note, tensors = share(*(_read(folder / CHECKPOINT, run) if rank() == 0 else ("", {})))
    if not note:
        return 0
    record: dict[str, Any] = json.loads(note)
    run.load(tensors, record["step"])
    best |= {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    result.curve, result.seconds = record["curve"], record["seconds"]
    result.epoch, result.ndcg, result.hit_rate = record["epoch"], record["ndcg"], record["hit_rate"]
    log.info("going on after epoch %d from %s", len(result.curve), folder / CHECKPOINT)
    return len(result.curve)


def _read(file: Path, run: _Run) -> tuple[str, dict[str, Tensor]]:
    """Record, as JSON, and tensors of a checkpoint; an empty record where there is none of this configuration."""
    if not file.exists():
        return "", {}
    with safe_open(file, framework="pt") as opened:
        note: str = opened.metadata()["record"]
        record = json.loads(note)
        if record["config"] != run.config.model_dump_json() or record["seed"] != run.seed:
            log.info("%s belongs to another configuration and is left aside", file)
            return "", {}
        return note, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
