"""The program of a TrainJob's pod: fetch the inputs, torchrun, put the output back. `python -m components._trainee`

Trainer's torch runtime says by PET_* variables which pod this is; torchrun reads them itself. torchrun runs this module
again, once a process, which runs the step's component with the task's inputs as local paths.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec

from components._train_job import MEASURES, TASK

LOCAL = "NEWFOUND_LOCAL_TASK"
RESTARTS = "3"  # of the processes, after one was killed, unless the runtime says otherwise; they go on where they were


class _Local:
    """A file or folder here, in place of a kfp artifact."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path, self.metadata = name, path, dict[str, object]()

    def log_metric(self, _name: str, _value: float) -> None:
        """Measures go to the file alone."""


def pod() -> int:
    """One pod: everything but the training itself. Gives torchrun's exit status."""
    task = json.loads(os.environ[TASK])
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        inputs = {name: fetch(url, Path(folder) / name) for name, url in task["inputs"].items()}
        local = {**task, "inputs": inputs, "output": f"{folder}/output", "measures": f"{folder}/{MEASURES}"}
        command = [sys.executable, "-m", "torch.distributed.run", "-m", "components._trainee"]
        told = {"PET_MAX_RESTARTS": RESTARTS, **os.environ, LOCAL: json.dumps(local)}
        done = subprocess.run(command, check=False, env=told)
        if done.returncode == 0 and os.environ.get("PET_NODE_RANK", "0") == "0":
            fs, path = fsspec.core.url_to_fs(task["output"])
            fs.put(f"{folder}/output/", f"{path}/output/", recursive=True)
            fs.put_file(f"{folder}/{MEASURES}", f"{path}/{MEASURES}")
        return done.returncode


def fetch(url: str, target: Path) -> str:
    """Copies a file or folder to this machine."""
    fs, path = fsspec.core.url_to_fs(url)
    if fs.isfile(path):
        fs.get_file(path, str(target))
    else:
        fs.get(f"{path}/", f"{target}/", recursive=True)
    return str(target)


def process(task: dict[str, Any]) -> None:
    """One process under torchrun."""
    paths = {**task["inputs"], task["made"]: task["output"], "metrics": task["measures"]}
    component = getattr(importlib.import_module(f"components.{task['step']}"), task["step"])
    component.python_func(settings=task["settings"], **{name: _Local(name, path) for name, path in paths.items()})


if __name__ == "__main__":
    if LOCAL in os.environ:
        process(json.loads(os.environ[LOCAL]))
    else:
        sys.exit(pod())
