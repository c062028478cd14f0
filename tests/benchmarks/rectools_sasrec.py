"""RecTools' SASRec under the ranker benchmark's protocol. Runs in the rival's own environment (`.rectools`), alone.

Reads sequences as JSON lines (a list of item numbers a user, the last two held out), trains on the rest and writes a
record and a checkpoint after every epoch: a run that was stopped goes on after the last epoch that it finished.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd


def frame(sequences: list[list[int]], least: int = 1) -> pd.DataFrame:
    rows = [(user, item, at) for user, row in enumerate(sequences) if len(row) >= least for at, item in enumerate(row)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "at"])
    table["datetime"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(table.pop("at"), unit="D")
    table["weight"] = 1.0
    return table


def measures(model: object, sequences: list[list[int]], targets: list[int]) -> dict[str, float]:
    """HR@10 and NDCG@10 over all users: every item ranked, seen items filtered; a target the model lacks is a miss."""
    from rectools.dataset import Dataset

    users = np.arange(len(sequences))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.recommend(users=users, dataset=Dataset.construct(frame(sequences)), k=10, filter_viewed=True)
    wanted = pd.Series(targets, index=users)
    hits = found[found["item_id"] == found["user_id"].map(wanted)]
    return {"hr@10": len(hits) / len(users), "ndcg@10": float((1 / np.log2(hits["rank"] + 1)).sum() / len(users))}


def build(
    options: argparse.Namespace,
    epochs: int,
    workers: int,
    precision: str,
    batches: int | None,
    record: Callable[[int, float, float], None],
    checkpoint: Path | None = None,
):
    """The model; `record` gets each epoch's number (from 0) and seconds, `checkpoint` is gone on from and kept."""
    from pytorch_lightning import Callback, Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint
    from rectools.models import SASRecModel

    class Clock(Callback):
        """Wall and processor seconds of each epoch's training alone."""

        weights: dict[str, object] | None = None

        def on_load_checkpoint(self, trainer: object, module: object, found: dict[str, object]) -> None:
            self.weights = found["state_dict"]

        def on_train_epoch_start(self, trainer: object, module: object) -> None:
            if self.weights is not None:
                # RecTools draws the weights anew whenever training starts, after the checkpoint was read.
                module.load_state_dict(self.weights)
                self.weights = None
            self.start = time.perf_counter(), _cpu()

        def on_train_epoch_end(self, trainer: object, module: object) -> None:
            record(trainer.current_epoch, time.perf_counter() - self.start[0], _cpu() - self.start[1])

    class Resuming(Trainer):
        """RecTools hands no checkpoint to its trainer, so the trainer looks for it."""

        def fit(self, *arguments: object) -> None:
            super().fit(*arguments, ckpt_path=checkpoint if checkpoint and checkpoint.exists() else None)

    callbacks = [Clock()]
    if checkpoint:
        keep = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        callbacks.append(ModelCheckpoint(dirpath=checkpoint.parent, filename=checkpoint.stem, **keep))

    def trainer() -> Trainer:
        return Resuming(
            max_epochs=epochs,
            min_epochs=epochs,
            precision=precision,
            limit_train_batches=batches,
            callbacks=callbacks,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=checkpoint is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    return SASRecModel(
        n_factors=64,
        n_blocks=options.blocks,
        n_heads=1,
        session_max_len=options.length,
        dropout_rate=0.2,
        loss="sampled_softmax",
        n_negatives=256,
        lr=1e-3,
        batch_size=128,
        epochs=epochs,
        dataloader_num_workers=workers,
        get_trainer_func=trainer,
    )


def _cpu() -> float:
    """Processor seconds of this process; the finished loader workers' are added when they end."""
    return sum(sum(os.times()[part : part + 2]) for part in (0, 2))


def probe(options: argparse.Namespace, train: object) -> dict[str, object]:
    """The precision and the number of loader workers whose second, short epoch is fastest."""
    if len(options.precision) == len(options.workers) == 1:
        return {"precision": options.precision[0], "workers": options.workers[0]}
    tried: dict[tuple[str, int], float] = {}
    for precision, workers in product(options.precision, options.workers):
        seconds: list[float] = []
        clock = partial(_note_wall, seconds)
        build(options, 2, workers, precision, options.probe_batches, clock).fit(train)
        tried[precision, workers] = seconds[-1] / options.probe_batches
        print(f"probe: {precision}, {workers} workers: {tried[precision, workers]:.3f} s a batch", flush=True)
    precision, workers = min(tried, key=tried.__getitem__)
    probes = {f"{name}, {count} workers": value for (name, count), value in tried.items()}
    return {"precision": precision, "workers": workers, "probe_seconds_per_batch": probes}


def _note_wall(seconds: list[float], epoch: int, wall: float, cpu: float) -> None:
    seconds.append(wall)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sequences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--length", type=int, default=50)
    # With several of either, each pair is timed over a few batches first, and the fastest is used.
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--probe-batches", type=int, default=8)
    parser.add_argument("--no-measures", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    import pytorch_lightning
    import rectools
    import torch
    from rectools.dataset import Dataset

    torch.set_num_threads(options.threads)
    pytorch_lightning.seed_everything(options.seed)
    warnings.simplefilter("ignore")
    lines = options.sequences.read_text()
    sequences = [json.loads(line) for line in lines.splitlines()]
    train = Dataset.construct(frame([row[:-2] for row in sequences]))

    settings = {name: str(value) for name, value in vars(options).items()}
    settings |= {
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "rectools": rectools.__version__,
        "torch": torch.__version__,
    }
    record: dict[str, object] = json.loads(options.out.read_text()) if options.out.exists() else {}
    checkpoint = options.out.with_suffix(".ckpt")
    if record.get("settings") != settings or (not record["done"] and not checkpoint.exists()):
        checkpoint.unlink(missing_ok=True)
        record = {"settings": settings, **probe(options, train), "epoch_seconds": [], "epoch_cpu_seconds": []}
        record["done"] = False
    # Lightning keeps no random state: a run that goes on draws other numbers than one that was never stopped.
    pytorch_lightning.seed_everything(options.seed + 1000 * len(record["epoch_seconds"]))

    def save() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        record["peak_memory_mb"] = max(peak, record.get("peak_memory_mb", 0.0))
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps(record, indent=1))
        os.replace(part, options.out)

    def note(epoch: int, wall: float, cpu: float) -> None:
        # An epoch whose checkpoint was not written any more is trained and timed anew.
        record["epoch_seconds"][epoch:] = [wall]
        record["epoch_cpu_seconds"][epoch:] = [cpu]
        save()
        print(f"RecTools: epoch {epoch + 1} of {options.epochs}: {wall:.1f} s, {cpu:.1f} processor s", flush=True)

    if record["done"]:
        print(f"RecTools: taken from {options.out}", flush=True)
        return
    model = build(options, options.epochs, record["workers"], record["precision"], None, note, checkpoint)
    model.fit(train)
    if not options.no_measures:
        record["validation"] = measures(model, [row[:-2] for row in sequences], [row[-2] for row in sequences])
        record["test"] = measures(model, [row[:-1] for row in sequences], [row[-1] for row in sequences])
    record["done"] = True
    save()
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
