"""Seconds until the ranker has the quality that RecTools' SASRec has after 20 epochs: `make bench-ranker-speed`.

Both sides run here, one after the other, with the same number of threads and the same allocator settings. RecTools
0.19 gets 64 factors, 1 block, length 50, batch 128, sampled softmax with 256 negatives and dropout .2, with the
precision and the number of loader workers that are fastest in a short probe; its time is that of its training epochs
alone. Ours is the transformer with its defaults, validation after every epoch included; the co-occurrence has no
part in it, but the time and quality of counts alone are shown beside. Then an epoch of either at the same settings, on
these data and on long dense sequences.

RecTools' side takes most of an hour. It keeps a checkpoint after each epoch, so a run that was stopped goes on there
(`--fresh` starts anew); our side takes minutes and always runs whole.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from newfound.config import RankerConfig
from newfound.measures import ndcg, ranks_of
from newfound.ranker.build import DECAYS
from newfound.ranker.cooccurrence import count_cooccurrence
from newfound.ranker.data import Sequences, read_sequence_lines
from newfound.ranker.train import fit
from newfound.ranker.validation import held_out_users
from tests.benchmarks.record import machine, write_record

TOYS = Path("../shared/data/amazon-toys/Toys_and_Games.txt")
# What newfound.compute.allocator sets by call: freed memory stays with the process.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_TOP_PAD_": "67108864"}


def rectools(options: argparse.Namespace, name: str, sequences: Sequences, *more: str) -> dict:
    """Runs the rival in its own environment, from where it stood."""
    work = options.work / f"rectools-{name}.json"
    options.work.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        work.unlink(missing_ok=True)
    data = options.work / f"{name}.jsonl"
    data.write_text("".join(json.dumps(sequences.row(user).tolist()) + "\n" for user in range(len(sequences))))
    threads = str(options.threads)
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": threads}
    script = str(Path(__file__).with_name("rectools_sasrec.py"))
    command = [
        str(options.rival),
        script,
        str(data),
        str(work),
        "--threads",
        threads,
        "--seed",
        str(options.seed),
        *more,
    ]
    subprocess.run(command, check=True, env=environment)
    return json.loads(work.read_text())


def epoch_seconds(sequences: Sequences, items: int, config: RankerConfig, seed: int, epochs: int = 2) -> float:
    """Seconds of one training epoch, without validation; the first one warms up."""
    curve = fit(sequences, items, config, seed, hold_out=False, epochs=epochs).curve
    return min(record["seconds"] for record in curve[1:])


def gemm_peak() -> float:
    """Floating point operations a second of a large bfloat16 matrix product, the best of several."""
    one, other = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def work_of(targets: int, items: int, config: RankerConfig) -> float:
    """Floating point operations that an epoch's matrix products need for real targets; padding earns nothing."""
    layer = 8 * config.dim**2  # attention's four products and the two of the feed-forward layer
    return 6.0 * targets * (config.blocks * layer + config.dim * items)


def counts_alone(train: Sequences, last: np.ndarray, items: int) -> tuple[float, float]:
    """NDCG@10 of the co-occurrence alone, and the seconds of counting."""
    started = time.perf_counter()
    cooccurrence = replace(count_cooccurrence(train, items), weight=1.0, decay=DECAYS[1])
    seconds = time.perf_counter() - started
    ranks = []
    for user in held_out_users(train, last):
        history = train.row(user)
        found, bonus = cooccurrence.bonus(history)
        scores = np.full(items, -np.inf)
        scores[found] = bonus
        scores[history] = -np.inf
        ranks.append(int(ranks_of(scores[None], last[[user]])[0]))
    return ndcg(np.array(ranks), 10), seconds


def dense(users: int, length: int, items: int, seed: int) -> Sequences:
    """Long sequences over a small catalogue, popularity falling as 1 / rank."""
    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, items + 1)
    drawn = random.choice(items, users * length, p=share / share.sum())
    return Sequences(drawn, np.arange(0, users * length + 1, length))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=Path, default=TOYS, help="text file of sequences")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--epochs", type=int, default=20, help="of RecTools")
    parser.add_argument("--users", type=int, help="for a try: only the first so many")
    parser.add_argument("--dense-users", type=int, default=6060)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="do not go on with what the work folder has of RecTools")
    parser.add_argument("--rival", type=Path, default=Path(".rectools/bin/python"))
    parser.add_argument("--work", type=Path, default=Path("runs/bench/ranker-speed"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/ranker-speed.json"))
    options = parser.parse_args()
    if options.interactions.is_dir():
        options.interactions = next(iter(sorted(options.interactions.glob("*.txt"))))
    torch.set_num_threads(options.threads)
    _, names, sequences = read_sequence_lines(options.interactions)
    if options.users:
        sequences = Sequences.of(sequences.row(user) for user in range(options.users))
    items = len(names)
    past, _ = sequences.drop_last(least=3)
    train, last = past.drop_last(least=3)
    record: dict[str, object] = {**machine(), "threads": options.threads, "seed": options.seed}

    theirs = rectools(options, "sparse", sequences, "--epochs", str(options.epochs))
    goal, their_seconds = theirs["validation"]["ndcg@10"], sum(theirs["epoch_seconds"])
    record |= {"ndcg@10.rectools": goal, "test.ndcg@10.rectools": theirs["test"]["ndcg@10"]}
    record |= {"seconds.rectools": their_seconds, "epoch_seconds.rectools": float(np.median(theirs["epoch_seconds"]))}
    record |= {f"rectools.{name}": theirs[name] for name in ("precision", "workers", "peak_memory_mb")}
    record["version.rectools"] = theirs["settings"]["rectools"]
    print(f"RecTools: validation NDCG@10 {goal:.4f} after {their_seconds:.0f} s of training", flush=True)

    started = time.perf_counter()
    reached: list[float] = []

    def watch(epoch: int, state: dict[str, float]) -> bool:
        print(f"ours: epoch {epoch}, NDCG@10 {state['ndcg@10']:.4f}, {time.perf_counter() - started:.1f} s", flush=True)
        if state["ndcg@10"] >= goal:
            reached.append(time.perf_counter() - started)
        return bool(reached)

    config = RankerConfig()
    ours = fit(past, items, config, options.seed, watch=watch)
    seconds = reached[0] if reached else None
    record |= {"ndcg@10.ours": ours.ndcg, "seconds.ours": seconds, "epochs.ours": len(ours.curve)}
    record["time_to_quality_ratio_vs_rectools"] = their_seconds / seconds if seconds else None
    record["peak_memory_mb.ours"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record["ndcg@10.counts_alone"], record["seconds.counts_alone"] = counts_alone(train, last, items)

    peak = gemm_peak()
    targets = int((train.lengths - 1).clip(0).sum())
    own_epoch = epoch_seconds(train, items, config, options.seed)
    record |= {"gemm_peak_gflops": peak / 1e9, "epoch_seconds.ours_defaults": own_epoch}
    record["fraction_of_gemm_peak"] = work_of(targets, items, config) / own_epoch / peak
    batches = -(-len(train) // 128)
    same = RankerConfig(blocks=1, max_length=50, negatives=256, learning_rate=1e-3, batch_tokens=targets // batches)
    record["epoch_seconds.ours"] = epoch_seconds(train, items, same, options.seed)
    record["epoch_ratio_vs_rectools"] = float(np.median(theirs["epoch_seconds"])) / record["epoch_seconds.ours"]

    # The rival's protocol holds two items out.
    long = dense(options.dense_users, 167, 3416, options.seed)
    more = ("--epochs", "1", "--blocks", "2", "--length", "200", "--no-measures", "--workers", str(theirs["workers"]))
    slow = rectools(options, "dense", long, *more, "--precision", theirs["precision"])
    same = RankerConfig(blocks=2, negatives=256, learning_rate=1e-3, batch_tokens=128 * 165)
    kept = long.drop_last(least=3)[0].drop_last(least=3)[0]
    record |= {
        "dense.epoch_seconds.rectools": slow["epoch_seconds"][0],
        "dense.peak_memory_mb.rectools": slow["peak_memory_mb"],
    }
    record["dense.epoch_seconds.ours"] = epoch_seconds(kept, 3416, same, options.seed)
    record["dense.epoch_ratio_vs_rectools"] = slow["epoch_seconds"][0] / record["dense.epoch_seconds.ours"]
    record["dense.peak_memory_mb.ours"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for name, value in sorted(record.items()):
        print(f"{name:40} {value:.4g}" if isinstance(value, float) else f"{name:40} {value}")
    write_record(options.out, record)


if __name__ == "__main__":
    main()
