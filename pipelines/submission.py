"""`python -m pipelines submit` and `resume`: a pipeline with its configuration, given to Kubeflow, run to its end."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from newfound.config import BatchConfig, TrainingConfig
from newfound.errors import ConfigError
from pipelines.options import PLATFORM, PRODUCTION, ConfigFile, PlatformFile, Previous, configured, console


def submit_command(
    host: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    releases: Annotated[str, typer.Option(help="URL of all releases, as the cluster sees it.")],
    pipeline: Annotated[str, typer.Argument(help="training, refresh, batch or interests.")] = "training",
    config: ConfigFile = PRODUCTION,
    platform: PlatformFile = PLATFORM,
    interactions: Annotated[str | None, typer.Option(help="Other interactions: URL as the cluster sees it.")] = None,
    items: Annotated[str | None, typer.Option(help="Their items, likewise.")] = None,
    experiment: Annotated[str, typer.Option(help="Experiment that the run belongs to.")] = "newfound",
    name: Annotated[
        str | None, typer.Option(help="Name of the run; by data, configuration and time if absent.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(envvar="NEWFOUND_KFP_NAMESPACE", help="Profile, where Kubeflow serves several users.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Run on a schedule: six fields, seconds first.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the run, and say what its gates said.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 86400,
    poll: Annotated[int, typer.Option(help="Seconds between two looks.")] = 30,
    previous: Previous = "current",
    out: Annotated[str, typer.Option(help="Folder or URL for batch's slates, beside the artifacts.")] = "",
    ca_file: Annotated[str | None, typer.Option(help="Certificates that the host's is signed by.")] = None,
) -> None:
    """Starts a pipeline on Kubeflow, once or on a schedule."""
    from pipelines.kubeflow import Access, shards_of, submit
    from pipelines.kubeflow import wait as wait_for
    from pipelines.platform import load_platform

    _refuse_nonsense(pipeline, cron, wait)
    settings, cluster = configured(config, interactions, items), load_platform(platform)
    access = Access.by_environment(host, namespace, ca_file)
    if cron is None:
        previous = _release_now(previous, releases)
    if previous == "current":  # read when the step runs, whatever it was before
        cluster = cluster.model_copy(update={"fresh": (*cluster.fresh, "build-clusters")})
    arguments = _arguments(pipeline, settings, releases, cluster, previous, out)
    run_name, shards = name or _run_name(pipeline, config, settings, arguments), shards_of(pipeline, settings, cluster)
    place = {"experiment": experiment, "run_name": run_name, "shards": shards, "cron": cron}
    submitted = submit(pipeline, arguments, cluster, access, **place)  # type: ignore[arg-type]
    console.print(f"{'scheduled' if cron else 'submitted'}: {escape(submitted.name)}", soft_wrap=True)
    console.print(escape(submitted.page), soft_wrap=True)
    if wait:
        states = wait_for(pipeline, submitted, access, seconds=timeout, poll_s=poll)
        for step, state in states.items():
            console.print(f"{state.lower():<12}{escape(step)}")
        _show_gates(releases, pipeline)


def resume_command(
    host: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    experiment: Annotated[str, typer.Option(help="Experiment whose runs are looked at.")] = "newfound",
    namespace: Annotated[
        str | None, typer.Option(envvar="NEWFOUND_KFP_NAMESPACE", help="Profile, where Kubeflow serves several users.")
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Runs that were started longer ago are left.")] = 7,
    times: Annotated[int, typer.Option(min=0, help="How often a run goes on at most.")] = 3,
    ca_file: Annotated[str | None, typer.Option(help="Certificates that the host's is signed by.")] = None,
) -> None:
    """Has failed runs go on where they stopped, but those whose gates did not hold."""
    from pipelines.kubeflow import Access
    from pipelines.resuming import resume

    access = Access.by_environment(host, namespace, ca_file)
    said = list(resume(access, experiment, since=datetime.now(UTC) - timedelta(days=days), times=times))
    for line in said or ["nothing to resume"]:
        console.print(escape(line), soft_wrap=True)


def _refuse_nonsense(pipeline: str, cron: str | None, wait: bool) -> None:
    from pipelines.kubeflow import PIPELINES

    if pipeline not in PIPELINES:
        raise ConfigError(f"{pipeline}: no such pipeline; expected one of {', '.join(PIPELINES)}")
    if cron is not None and wait:
        raise ConfigError("--wait: a schedule has no end to wait for; expected one of --cron and --wait")
    if cron is not None and pipeline in ("refresh", "interests"):
        raise ConfigError(
            f"--cron: {pipeline} goes by the release that serves when it is submitted; submit it when due"
        )


def _release_now(previous: str, releases: str) -> str:
    """The id behind `current`, by which caches can go; `current` where the releases cannot be read from here."""
    from newfound.release.store import current

    try:
        return (current(releases) or "") if previous == "current" else previous
    except Exception:  # each store's client has its own errors
        return previous


def _arguments(
    pipeline: str, settings: TrainingConfig, releases: str, cluster: Any, previous: str, out: str
) -> dict[str, object]:
    from pipelines import batch, interests, refresh, training

    if pipeline == "training":
        return training.arguments(settings, releases, previous=previous, image=cluster.image)
    if pipeline == "refresh":
        promote = cluster.canary is None
        settings = refresh.of_events(settings)
        return refresh.arguments(settings, releases, promote=promote, image=cluster.image)
    if pipeline == "interests":
        return interests.arguments(settings, releases, cluster.image)
    return batch.arguments(settings, BatchConfig(shards=cluster.batch_shards), releases, out=out, image=cluster.image)


def _run_name(pipeline: str, config: Path, settings: TrainingConfig, arguments: dict[str, object]) -> str:
    """Pipeline, data and configuration, each of the latter with the beginning of its digest, and the time."""

    def short(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    data = Path(settings.data.interactions or settings.data.folder or settings.data.loader).stem
    what = f"{data}-{short(str(arguments['data']))} {config.stem}-{short(settings.model_dump_json())}"
    return f"{pipeline} {what} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def _show_gates(releases: str, pipeline: str) -> None:
    """Says what the gates of the newest release were, where the releases can be read from here."""
    from newfound.release.store import list_releases
    from pipelines.kubeflow import GATES

    if pipeline not in GATES:
        return
    try:
        newest = list_releases(releases)[-1]
    except Exception as error:  # each store's client has its own errors, and the run itself has succeeded
        console.print(f"gates: all held; {escape(releases)} cannot be read from here ({type(error).__name__})")
        return
    for gate, judged in newest.gates.items():
        console.print(
            f"gate {gate.replace('_', ' ')}: {judged['value']:.3g}, at least {judged['bound']:g} was asked for"
        )
    console.print(f"release: {escape(releases)}/{newest.id}", soft_wrap=True)
