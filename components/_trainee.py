"""What a TrainJob's pod runs: fetch the inputs, torchrun, put the output back. `python -m components._trainee`

Trainer's torch runtime says by PET_* variables which pod this is; torchrun reads them itself. torchrun runs this module
again, once a process, with the task's inputs as local paths.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec

from components._step import running
from components._train_job import MEASURES, TASK

LOCAL = "NEWFOUND_LOCAL_TASK"


class _File:
    """Where `running` writes measures, in place of a kfp artifact."""

    def __init__(self, path: str) -> None:
        self.path, self.metadata = path, dict[str, object]()

    def log_metric(self, _name: str, _value: float) -> None:
        """Measures go to the file alone."""


def pod() -> int:
    """One pod: everything but the training itself. Gives torchrun's exit status."""
    task = json.loads(os.environ[TASK])
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        inputs = {name: fetch(url, Path(folder) / name) for name, url in task["inputs"].items()}
        local = {**task, "inputs": inputs, "output": f"{folder}/output", "measures": f"{folder}/{MEASURES}"}
        command = [sys.executable, "-m", "torch.distributed.run", "-m", "components._trainee"]
        done = subprocess.run(command, check=False, env={**os.environ, LOCAL: json.dumps(local)})
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


def process(task: dict[str, str | dict[str, str]]) -> None:
    """One process under torchrun; the first one writes."""
    given = {name: Path(path) for name, path in dict(task["inputs"]).items()}
    out = Path(str(task["output"]))
    first = os.environ.get("RANK", "0") == "0"
    metrics = _File(str(task["measures"]) if first else os.devnull)
    with running(str(task["settings"]), metrics) as step:
        config = step.config
        if task["step"] == "train_ranker":
            from newfound.ranker import train_ranker

            parts = (given["dataset"], given["histories"], given["clusters"])
            step.measures = train_ranker(*parts, config.ranker, config.seed, config.threads, out, given["tuned"])
        else:
            from newfound.planner import finetune_planner

            parts = (given["transitions"], given["clusters"])
            step.measures = finetune_planner(*parts, config.planner, config.seed, out, given.get("init"))


if __name__ == "__main__":
    if LOCAL in os.environ:
        process(json.loads(os.environ[LOCAL]))
    else:
        sys.exit(pod())
