"""The frame around a component's one call into the library: settings in; measures, inventory and errors out.

`settings` is a JSON string (a `dict` parameter would turn its integers into floats) with everything that the step
depends on beside its input artifacts: `config`, the sections of `TrainingConfig` that it reads, and digests of code
and files, which only serve to tell caches that something changed.

Start and end of a step are lines of JSON on stdout, for whoever watches: `{"newfound_step": "started", "folder": ...}`,
then `finished` with the artifacts' paths by name, or `failed` with a reason where the library gave one.
"""

import json
import logging
import math
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newfound.compute.allocator import keep_freed_memory
from newfound.compute.engine import running_on
from newfound.config import TrainingConfig, parse_config
from newfound.errors import NewfoundError

# Environment variable: set by a local run.
LOCAL_RUN = "NEWFOUND_LOCAL_RUN"
EVENT = "newfound_step"
# Measures of the step itself, beside those of its work.
WALL_SECONDS, CPU_SECONDS, PEAK_MEGABYTES = "step.wall_seconds", "step.cpu_seconds", "step.peak_megabytes"
SHOWN = 100


class Step:
    """One step that runs: its configuration, and what came of it."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.measures: dict[str, float | int | str] = {}


@contextmanager
def running(settings: str, metrics: Any, *outputs: Any) -> Iterator[Step]:
    """Sets a step up, and records what it measured and which files it wrote.

    Args:
        settings: JSON, see above.
        metrics: the step's kfp Metrics; every measure goes to its file, the chief numbers among them to KFP as well.
        outputs: the step's other output artifacts; each gets `inventory`, the size of every file by its path.

    Of the processes that torchrun started, the first one records.

    Raises:
        SystemExit: the library refused the work; its message is in the last event.
    """
    _log_to_stdout()
    keep_freed_memory()
    if os.environ.get(LOCAL_RUN):
        threading.Thread(target=_end_with_the_run, daemon=True).start()
    records = os.environ.get("RANK", "0") == "0"
    began, folder = _Usage.now(), str(Path(metrics.path).parent)
    _tell(records, "started", folder=folder)
    try:
        step = Step(parse_config(json.loads(settings)["config"], "settings"))
        os.environ.setdefault("OMP_NUM_THREADS", str(step.config.threads))
        with running_on(step.config):
            yield step
    except BaseException as error:
        refused = isinstance(error, NewfoundError)
        _tell(records, "failed", folder=folder, reason=" ".join(str(error).split()) if refused else None)
        if refused:
            raise SystemExit(1) from error
        raise
    if records:
        # A TrainJob's measures have its own.
        _record({**_Usage.now().since(began), **step.measures}, metrics)
        for output in outputs:
            output.metadata["inventory"] = inventory(Path(output.path))
        _tell(records, "finished", folder=folder, artifacts={one.name: one.path for one in (metrics, *outputs)})


def _record(measures: dict[str, float | int | str], metrics: Any) -> None:
    """Writes every measure to the metrics' file, and shows the chief numbers to KFP."""
    numbers = {name: value for name, value in measures.items() if isinstance(value, int | float)}
    # The least specific names first: KFP keeps measures as properties, some hundred at most.
    for name in sorted(numbers, key=lambda name: name.count("."))[:SHOWN]:
        if math.isfinite(numbers[name]):
            metrics.log_metric(name, float(numbers[name]))
    Path(metrics.path).write_text(json.dumps(measures, indent=2), encoding="utf-8")


def _tell(records: bool, state: str, **details: Any) -> None:
    if records:
        print(json.dumps({EVENT: state, **details}), flush=True)


@dataclass(frozen=True)
class _Usage:
    """Resources of this process, and of its children that have ended, at one moment."""

    wall_seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> "_Usage":
        used = os.times()
        return cls(time.monotonic(), sum(used[:4]))

    def since(self, began: "_Usage") -> dict[str, float]:
        """Measures of the time between; the peak is the whole process's, its imports among it."""
        return {
            WALL_SECONDS: round(self.wall_seconds - began.wall_seconds, 6),
            CPU_SECONDS: round(self.cpu_seconds - began.cpu_seconds, 6),
            PEAK_MEGABYTES: _peak_megabytes(),
        }


def _peak_megabytes() -> float:
    """Peak of the resident set. Not getrusage's, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024 / 1e6, 1)


def inventory(path: Path) -> dict[str, int]:
    """Size in bytes of every file in a folder by its path there, or of the one file (named ``.``)."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}


def _log_to_stdout() -> None:
    """One line a record, the library at INFO and everybody else from WARNING on."""
    logging.basicConfig(
        stream=sys.stdout, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("newfound").setLevel(logging.INFO)


def _end_with_the_run() -> None:
    """Ends this process when nobody reads its output any more: a local run that was killed leaves no step behind."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    reader.poll()
    os._exit(1)
