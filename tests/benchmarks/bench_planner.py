"""The planner beside its teacher, and what it costs, on the clusters and transitions of finished runs.

    make bench-planner RUNS="runs/movielens runs/microlens"

Each folder holds `clusters` and `transitions`. A planner is fine-tuned with the default configuration, its table built,
and both are asked about test users' novel choices. `runs/bench/planner.json` gets, for each folder by its name:
contexts read, seconds of fine-tuning and of the table, pairs read a second, peak memory, match rate, NovelRecall of
planner, table and teacher, and the planner's difference from the teacher with 95 % intervals over users.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from newfound import measures
from newfound.clusters import Clusters
from newfound.config import PlannerConfig, TableConfig
from newfound.evaluation.bootstrap import Bootstrap
from newfound.planner.planner import Planner
from newfound.planner.training.finetune import finetune_planner
from newfound.planner.training.training_set import read_training_set
from newfound.table import TransitionTable, build_table
from newfound.transitions.artifact import Transitions
from newfound.types import Floats
from tests.benchmarks.record import machine, write_record

ROOT = Path(__file__).parents[2]
SEED = 7


def measure(run: Path, minutes: float | None, threads: int) -> dict[str, float]:
    """One folder's figures; peak memory is this process's, so each folder has one of its own."""
    clusters = Clusters.load(run / "clusters")
    mined = Transitions.load(run / "transitions", clusters)
    config = PlannerConfig()
    if minutes is not None:
        config = config.model_copy(update={"finetune": config.finetune.model_copy(update={"minutes": minutes})})
    with tempfile.TemporaryDirectory() as place:
        planner, table = Path(place) / "planner", Path(place) / "table"
        started = time.monotonic()
        trained = finetune_planner(run / "transitions", run / "clusters", config, SEED, planner, threads=threads)
        tuned = time.monotonic()
        built = build_table(planner, run / "clusters", run / "transitions", TableConfig(), table)
        found = {
            "contexts_read": float(trained["contexts"]),
            "finetune_seconds": tuned - started,
            "table_seconds": time.monotonic() - tuned,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "match_rate": float(trained["match_rate"]),
            "penalty": float(trained["penalty"]),
            "prior": float(trained["prior"]),
            "second_build_top1_agreement": float(built["second_build_top1_agreement"]),
        }
        loaded = TransitionTable.load(table, clusters)
        return found | beside_teacher(Planner.load(planner, clusters), loaded, mined, config)


def beside_teacher(
    planner: Planner, table: TransitionTable, mined: Transitions, config: PlannerConfig
) -> dict[str, float]:
    """Recall on test users' choices, of all contexts by the table and of those that were read by the planner."""
    choices = mined.choices("test")
    assert choices.users is not None
    contexts = [tuple(table.interface[c] for c in context) for context in choices.contexts.tolist()]
    teacher = read_training_set(mined, config.finetune, SEED).teacher.scores(choices.contexts)
    n, read = len(table.interface), np.asarray(planner.has_read(contexts))
    found: dict[str, float] = {"choices": float(len(choices)), "choices_read": float(read.sum())}
    known = choices.known.sum(axis=1)

    def hits(scores: Floats, k: int) -> Floats:
        return measures.hits(measures.ranks_of(scores, choices.labels, choices.known), k)

    answers = table.log_probs(contexts)
    for k in (1, 10):
        ours, theirs = hits(answers, k), hits(teacher, k)
        found[f"table.novel_recall@{k}"], found[f"teacher.novel_recall@{k}"] = float(ours.mean()), float(theirs.mean())
        found[f"chance@{k}"] = float(measures.chance(k, n, known).mean())
        for name, rows in (("table", np.ones(len(choices), dtype=bool)), ("read", read)):
            boot = Bootstrap(choices.users[rows], resamples=1000, confidence=0.95, seed=SEED)
            value, low, high = boot.mean((ours - theirs)[rows])
            place = f"{name}.minus.teacher.novel_recall@{k}"
            found |= {place: value, f"{place}.lower": low, f"{place}.upper": high}
        boot = Bootstrap(choices.users, resamples=1000, confidence=0.95, seed=SEED)
        found[f"table.over_chance@{k}.lower"] = boot.mean(ours)[1] / found[f"chance@{k}"]
    return found


def main() -> None:
    """Parses, and starts a process a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, help="For reading contexts; the configuration's by default.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="Prints one folder's figures and writes nothing.")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.runs[0], options.minutes, options.threads)))
        return
    figures: dict[str, object] = {}
    for run in options.runs:
        command = [sys.executable, "-m", "tests.benchmarks.bench_planner", str(run), "--one"]
        command += ["--threads", str(options.threads)]
        command += [] if options.minutes is None else ["--minutes", str(options.minutes)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        print(run.name, json.dumps({name: round(value, 4) for name, value in one.items()}, indent=1), flush=True)
        figures |= {f"{run.name}.{name}": value for name, value in one.items()}
        write_record(ROOT / "runs" / "bench" / "planner.json", {**figures, **machine()})


if __name__ == "__main__":
    main()
