"""Submission of the pipeline that is due: here, or to Kubeflow Pipelines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from monitoring.retraining.decide import Decision, remember
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.users.interactions import write_interactions
from newfound.errors import NewfoundError


class SubmitError(NewfoundError):
    """A pipeline that could not be started; the message says which and why."""


def command_of(
    decision: Decision,
    *,
    to: str,
    config: Path,
    releases: str,
    interactions: str,
    items: str | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command that starts a decision's pipeline.

    A refresh has a pipeline of its own; fine-tuning and new clusters are the training pipeline.

    Args:
        decision: what is due.
        to: `local`, or the URL of Kubeflow Pipelines.
        config: the pipelines' configuration.
        releases: folder or URL of all releases.
        interactions: file or URL of what everybody did, which the pipeline learns from.
        items: file or URL of the catalogue, for the training pipeline, which reads its text; a refresh needs none.
        extra: further arguments.
    """
    refresh = decision.action == "refresh"
    command = [sys.executable, "-m"]
    if to == "local":
        command += ["pipelines", "local", "refresh" if refresh else "training"]
    else:
        command += ["pipelines", "submit", "refresh" if refresh else "training"]
        command += ["--host", to, "--name", f"{decision.action}: {decision.reason}"[:200]]
    command += ["--config", str(config), "--releases", releases, "--interactions", interactions]
    if items is not None and not refresh:
        command += ["--items", items]
    return [*command, *extra]


def submit(decision: Decision, **settings: Any) -> str:
    """Starts the pipeline and says so; a local one is waited for.

    Args:
        decision: what is due.
        settings: see `command_of`.

    Raises:
        SubmitError: it failed.
    """
    _run(decision.action, command_of(decision, **settings))
    return f"{decision.action} {'done' if settings['to'] == 'local' else 'submitted'}"


def submit_due(store: Store, decision: Decision, monitoring: MonitoringConfig, now: datetime, **settings: Any) -> str:
    """Writes everybody's interactions, which the pipeline learns from, remembers the decision and starts the pipeline.

    Args:
        store: the durable store.
        decision: what is due.
        monitoring: what feedback means.
        now: UTC.
        settings: see `command_of`.

    Raises:
        SubmitError: it failed.
    """
    write_interactions(store, monitoring, settings["interactions"])
    # Remembered before it runs: a run that fails must not be started again and again.
    remember(store, decision, now, submitted=True, run=settings["to"])
    return submit(decision, **settings)


def submit_interests(to: str, config: Path, releases: str, platform: Path | None = None) -> str:
    """Starts the pipeline that writes who has had which interest for the release that serves now, and says so.

    Args:
        to: the URL of Kubeflow Pipelines.
        config: the pipelines' configuration.
        releases: folder or URL of all releases.
        platform: YAML of the cluster.

    Raises:
        SubmitError: it could not be started.
    """
    command = [sys.executable, "-m", "pipelines", "submit", "interests", "--host", to]
    place = () if platform is None else ("--platform", str(platform))
    _run("interests", [*command, "--config", str(config), "--releases", releases, *place])
    return "interests submitted"


def _run(what: str | None, command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise SubmitError(f"{what}: `{' '.join(command[1:])}` ended with status {done.returncode}")
