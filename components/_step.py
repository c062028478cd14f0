"""The frame around a component's one call into the library: settings in; measures, inventory and errors out.

`settings` is a JSON string (a `dict` parameter would turn its integers into floats) with everything that the step
depends on beside its input artifacts: `config`, the sections of `TrainingConfig` that it reads, and digests of code
and files, which only serve to tell caches that something changed.
"""

import json
import logging
import math
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from newfound.compute.allocator import keep_freed_memory
from newfound.config import TrainingConfig, parse_config
from newfound.errors import NewfoundError

# Environment variable: set by a local run.
LOCAL_RUN = "NEWFOUND_LOCAL_RUN"
ERROR_LOGGER = "newfound.step"
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
        SystemExit: the library refused the work; its message was logged in one line.
    """
    _log_to_stdout()
    keep_freed_memory()
    if os.environ.get(LOCAL_RUN):
        threading.Thread(target=_end_with_the_run, daemon=True).start()
    try:
        step = Step(parse_config(json.loads(settings)["config"], "settings"))
        os.environ.setdefault("OMP_NUM_THREADS", str(step.config.threads))
        yield step
    except NewfoundError as error:
        logging.getLogger(ERROR_LOGGER).error("%s", " ".join(str(error).split()))
        raise SystemExit(1) from error
    if os.environ.get("RANK", "0") != "0":
        return
    numbers = {name: value for name, value in step.measures.items() if isinstance(value, int | float)}
    # The least specific names first: KFP keeps measures as properties, some hundred at most.
    for name in sorted(numbers, key=lambda name: name.count("."))[:SHOWN]:
        if math.isfinite(numbers[name]):
            metrics.log_metric(name, float(numbers[name]))
    Path(metrics.path).write_text(json.dumps(step.measures, indent=2), encoding="utf-8")
    for output in outputs:
        output.metadata["inventory"] = inventory(Path(output.path))


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
