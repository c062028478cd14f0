"""Starts the pipeline that is due: here, or on Kubeflow Pipelines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from monitoring.deciding import Decision
from newfound.errors import NewfoundError


class SubmitError(NewfoundError):
    """A pipeline that could not be started; the message says which and why."""


def command_of(decision: Decision, *, to: str, config: Path, releases: str, extra: Sequence[str] = ()) -> list[str]:
    """The command that starts a decision's pipeline.

    A refresh has a pipeline of its own; fine-tuning and new clusters are the training pipeline.

    Args:
        decision: what is due.
        to: `local`, or the URL of Kubeflow Pipelines.
        config: the pipelines' configuration.
        releases: folder or URL of all releases.
        extra: further arguments, such as where the interactions are.

    Raises:
        SubmitError: a refresh is to run elsewhere than here.
    """
    if decision.action == "refresh" and to != "local":
        raise SubmitError(
            "refresh: which events are recent is read from the interactions before it starts, which works on this "
            "machine alone: --submit local, or start what `python -m pipelines.refresh compile` writes there by hand"
        )
    module = "pipelines.refresh" if decision.action == "refresh" else "pipelines"
    common = ["--config", str(config), "--releases", releases, *extra]
    if to == "local":
        return [sys.executable, "-m", module, "local", *common]
    name = f"{decision.action}: {decision.reason}"[:200]
    return [sys.executable, "-m", module, "submit", "--host", to, "--name", name, *common]


def submit(decision: Decision, *, to: str, config: Path, releases: str, extra: Sequence[str] = ()) -> str:
    """Starts the pipeline and says so; a local one is waited for.

    Raises:
        SubmitError: it failed.
    """
    command = command_of(decision, to=to, config=config, releases=releases, extra=extra)
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise SubmitError(f"{decision.action}: `{' '.join(command[1:])}` ended with status {done.returncode}")
    return f"{decision.action} {'done' if to == 'local' else 'submitted'}"
