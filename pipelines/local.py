"""A pipeline on this machine, through kfp's local runner."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from components import LOCAL_RUN
from feature_repo.store import FOLDER_VARIABLE, YAML_VARIABLE
from newfound.config import TrainingConfig
from newfound.errors import NewfoundError
from newfound.files import link
from pipelines.cache import drop_incomplete, new_work_folder, remove_leftovers
from pipelines.containers import Containers, absolute, docker_runner, image_id
from pipelines.dependencies import ROOT
from pipelines.profile import StepUsage, usage_of, write_profile, write_report
from pipelines.progress import Narrator, title

# Steps never call out, and leave the other processes of a small machine alone.
ENVIRONMENT: Final = {
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    LOCAL_RUN: "1",
}
SHOWN_AFTER_FAILURE: Final = ("evaluation", "report")


class StepError(NewfoundError):
    """A step of the pipeline that failed; the message names it and says why."""


@dataclass
class Run:
    """Outcome of a run.

    Attributes:
        artifacts: path of every artifact by name; those of the evaluated fit that were made again by the refit are
            named `<name>-evaluated`.
        steps: what every step took, in the order in which they ended.
    """

    artifacts: dict[str, Path] = field(default_factory=dict)
    steps: list[StepUsage] = field(default_factory=list)

    def add(self, task: str, artifacts: dict[str, Path], cached: bool) -> None:
        """Takes a finished task."""
        self.steps.append(usage_of(task, artifacts, cached))
        for name, path in artifacts.items():
            if name == "metrics":
                continue
            if task.endswith("-2"):
                self.artifacts[f"{name}-evaluated"] = self.artifacts[name]
            self.artifacts[name] = path

    @property
    def release(self) -> str:
        """Id of the published release."""
        return str(json.loads(self.artifacts["release"].read_text(encoding="utf-8"))["release"])


def run_training(
    config: TrainingConfig,
    *,
    runs: Path,
    releases: str,
    console: Console,
    previous: str = "",
    in_containers: bool = False,
) -> Run:
    """Runs the training pipeline; see `run_pipeline`.

    Args:
        config: the configuration.
        runs: folder for outputs, cache and logs.
        releases: folder or URL of all releases.
        console: where progress is shown.
        previous: the release whose clusters live on, an id or `current`; empty: none.
        in_containers: whether every step is a container of its own.
    """
    from pipelines.training import arguments, training

    containers = image = None
    if in_containers:
        image = image_id()
        config, read = absolute(config)
        releases = str(Path(releases).resolve())
        containers = Containers(read, (Path(releases),))
    given = arguments(config, releases, previous=previous, image=image)
    done = run_pipeline(training, given, runs=runs, threads=config.threads, console=console, containers=containers)
    write_report(done.artifacts["evaluation"] / "report.html", done.steps, runs / "report.html")
    return done


def run_pipeline(
    pipeline: Any,
    arguments: Mapping[str, object],
    *,
    runs: Path,
    threads: int,
    console: Console,
    containers: Containers | None = None,
) -> Run:
    """Runs every step that has no cached result, links the artifacts into `runs`, and keeps the profile there.

    Args:
        pipeline: a kfp pipeline whose components use `components._step`.
        arguments: the pipeline's.
        runs: folder for outputs, cache and logs.
        threads: of a step.
        console: where progress is shown; must not follow `sys.stdout`, which the run puts something else in place of.
        containers: where given, every step is a container; the paths that arguments name are then absolute.

    Raises:
        ContainerError: there is no Docker, or no image.
        StepError: a step failed; what had finished is kept, and the next run goes on from there.
        KeyboardInterrupt: the run was interrupted or terminated; likewise.
    """
    runs, done = runs.absolute(), Run()
    cache = runs / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone_in(runs))
        stack.enter_context(_environment(threads))
        stack.enter_context(_terminable())
        drop_incomplete(cache)
        remove_leftovers(runs / "work", cache)
        _choose_runner(runs, containers, stack)
        steps = len(pipeline.pipeline_spec.root.dag.tasks)
        narrator = Narrator(console, cache=cache, logs=runs / "logs", total=steps, on_done=done.add)
        try:
            with _told_to(narrator), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pipeline(**arguments)
        except RuntimeError as error:  # kfp's, of any step that failed
            _link(runs, {name: path for name, path in done.artifacts.items() if name in SHOWN_AFTER_FAILURE})
            raise StepError(_why(narrator)) from error
        finally:
            write_profile(done.steps, runs)
        _link(runs, done.artifacts)
    return done


def _choose_runner(runs: Path, containers: Containers | None, stack: contextlib.ExitStack) -> None:
    """Tells kfp how steps run, and where their outputs and cached results go."""
    from kfp import local

    work = new_work_folder(runs / "work")
    runner = local.SubprocessRunner(use_venv=False)
    if containers is not None:
        inside = {name: os.environ[name] for name in (*ENVIRONMENT, "OMP_NUM_THREADS") if name != LOCAL_RUN}
        runner = stack.enter_context(docker_runner(containers, runs / "work", inside))
    local.init(
        runner,
        pipeline_root=str(work),
        workspace_root=str(runs / "workspace"),
        enable_caching=True,
        cache_root=str(runs / "cache"),
    )


def _why(narrator: Narrator) -> str:
    task = narrator.failed or ""
    log = narrator.log_of(task)
    if narrator.reason:
        return f"{title(task)}: {narrator.reason}"
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing; was it killed, or short of memory?"
    return f"{title(task)} failed: {last} (all that it said: {log})"


@contextlib.contextmanager
def _alone_in(runs: Path) -> Iterator[None]:
    with (runs / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StepError(f"{runs}: another run is at work there; wait for it, or choose another --runs") from error
        yield


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT, OMP_NUM_THREADS=str(threads))
    # Steps import our packages wherever they run; a run's features are its own.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before.get("PYTHONPATH"))))
    for name in (FOLDER_VARIABLE, YAML_VARIABLE):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets a termination unwind like Ctrl-C does; the running step ends when its output is no longer read."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _told_to(narrator: Narrator) -> Iterator[None]:
    """Sends everything that kfp prints and logs to the narrator."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            narrator.tell_record(record.getMessage())

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = [Handler()]
    root.setLevel(logging.INFO)
    try:
        with contextlib.closing(narrator), contextlib.redirect_stdout(narrator):
            try:
                yield
            except RuntimeError:
                narrator.fail()
                raise
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _link(runs: Path, artifacts: dict[str, Path]) -> None:
    """Points `runs/<name>` at every artifact, in one step each."""
    for name, path in artifacts.items():
        link(runs / name, os.path.relpath(path, runs))
