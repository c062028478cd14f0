"""The search for the ranker's settings, by Optuna."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import ValidationError

from newfound.compute.distributed import processes
from newfound.config import Range, RankerConfig, TuningConfig
from newfound.errors import ConfigError
from newfound.files import write_json
from newfound.ranker.build import read_material
from newfound.ranker.train import fit

log = logging.getLogger("newfound.ranker")

JOURNAL: Final = "journal.log"
BEST: Final = "best.json"
FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)


def tune_ranker(
    dataset: Path,
    histories: Path,
    clusters: Path,
    config: RankerConfig,
    tuning: TuningConfig,
    seed: int,
    threads: int,
    out: Path,
) -> dict[str, float | int | str]:
    """Looks for the settings with the best validation NDCG@10, the configured ones tried first.

    Trials are shared through the storage, in a database in a study of its own for the same inputs: several workers
    (processes or machines) on one study do `tuning.trials` trials between them, and a search that was stopped goes on
    with those that are left. A trial whose NDCG@10 falls behind the median of the others at the same epoch is pruned.

    Args:
        dataset: the data set's folder.
        histories: histories.parquet.
        clusters: the clusters' folder.
        config: the settings that are not searched for.
        tuning: trials, their length, the space, workers and storage.
        seed: of the sampler and of every training.
        threads: for the numerics.
        out: folder for best.json, trials.json and the journal.

    Returns:
        The best trial's NDCG@10, and how many trials ran and were pruned.

    Raises:
        ConfigError: the space names a setting that the ranker does not have, or gives it a value that does not fit.
        DataError: an artifact is missing or broken.
    """
    _check_space(config, tuning)
    out.mkdir(parents=True, exist_ok=True)
    (out / BEST).unlink(missing_ok=True)
    started = time.perf_counter()
    if not tuning.trials:
        write_json(out / "trials.json", [])
        write_json(out / BEST, {"settings": {}, "trials": 0})
        return {"trials": 0, "pruned": 0, "seconds": 0.0}
    if tuning.storage is not None:
        name = f"{tuning.study}-{_inputs(dataset, histories, clusters, config, tuning, seed)}"
        tuning = tuning.model_copy(update={"study": name})
    study = _study(tuning, out)
    if tuning.storage is None:
        # Nobody else works on this run's own journal: what still seems to run was killed.
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial({name: value for name, value in config.model_dump().items() if name in tuning.space})
    share = (dataset, histories, clusters, config, tuning, seed, max(1, threads // tuning.workers), out)
    if tuning.workers == 1:
        _work(*share)
    else:
        with ProcessPoolExecutor(tuning.workers, get_context("spawn")) as pool:
            for worker in [pool.submit(_work, *share) for _ in range(tuning.workers)]:
                worker.result()
    return _write(study, config, tuning, out, time.perf_counter() - started)


def _inputs(
    dataset: Path, histories: Path, clusters: Path, config: RankerConfig, tuning: TuningConfig, seed: int
) -> str:
    """Twelve digits for all that a trial's result depends on: a database outlives runs, and its studies their data."""
    digest = hashlib.sha256()
    past = histories / "histories.parquet" if histories.is_dir() else histories
    for file in (dataset / "dataset.json", past, clusters / "clusters.json"):
        digest.update(file.read_bytes() if file.is_file() else b"")
    searched = tuning.model_dump(mode="json", include={"epochs", "space"})
    digest.update(json.dumps([config.model_dump(mode="json"), searched, seed], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def _work(
    dataset: Path,
    histories: Path,
    clusters: Path,
    config: RankerConfig,
    tuning: TuningConfig,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """One worker: takes trials until enough are finished; what it has begun by then it finishes."""
    study = _study(tuning, out)
    with processes(threads):
        material = read_material(dataset, histories, clusters, config)

        def objective(trial: optuna.Trial) -> float:
            chosen = config.model_copy(update=_ask(trial, tuning))
            chosen = chosen.model_copy(update={"epochs": min(chosen.epochs, tuning.epochs)})
            started = time.perf_counter()

            def watch(epoch: int, record: dict[str, float]) -> bool:
                trial.report(record["ndcg@10"], epoch)
                trial.set_user_attr("seconds", time.perf_counter() - started)
                if trial.should_prune():
                    raise optuna.TrialPruned
                return False

            result = fit(material.sequences, len(material.items), chosen, seed, text=material.text, watch=watch)
            return result.ndcg

        while len(finished := study.get_trials(deepcopy=False, states=FINISHED)) < tuning.trials:
            # A sampler made anew for each trial, so that a search that was stopped goes on as if it had not been.
            study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
            study.optimize(objective, n_trials=1)
            last = study.get_trials(deepcopy=False, states=FINISHED)[-1]
            log.info("trial %d of %d: %s, %s", len(finished) + 1, tuning.trials, last.params, last.state.name.lower())


def _study(tuning: TuningConfig, out: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: BaseStorage
    if tuning.storage is None:
        storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    else:
        # A worker that stops to beat is taken for dead, and its trial for failed.
        storage = RDBStorage(tuning.storage, heartbeat_interval=60, grace_period=180)
    return optuna.create_study(
        study_name=tuning.study,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2),
    )


def _ask(trial: optuna.Trial, tuning: TuningConfig) -> dict[str, float | int | str]:
    return {
        name: trial.suggest_float(name, space.low, space.high, log=space.log)
        if isinstance(space, Range)
        else trial.suggest_categorical(name, space)
        for name, space in sorted(tuning.space.items())
    }


def _check_space(config: RankerConfig, tuning: TuningConfig) -> None:
    for name, space in tuning.space.items():
        for value in (space.low, space.high) if isinstance(space, Range) else space:
            try:
                RankerConfig.model_validate({**config.model_dump(), name: value})
            except ValidationError as error:
                message = error.errors()[0]["msg"]
                raise ConfigError(f"tuning.space: {name!r} cannot be {value!r}: {message}") from error


def _write(
    study: optuna.Study, config: RankerConfig, tuning: TuningConfig, out: Path, seconds: float
) -> dict[str, float | int | str]:
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
    write_json(
        out / "trials.json",
        [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "ndcg@10": trial.value,
                "settings": trial.params,
                "curve": [value for _, value in sorted(trial.intermediate_values.items())],
                "seconds": trial.user_attrs.get("seconds"),
            }
            for trial in trials
        ],
    )
    write_json(out / BEST, {"settings": best.params, "ndcg@10": best.value, "trials": len(trials)})
    return {
        "validation.ndcg@10": float(best.value or 0.0),
        "trials": len(trials),
        "pruned": len(trials) - len(complete),
        "seconds": seconds,
        **{f"best.{name}": value for name, value in sorted(best.params.items())},
    }
