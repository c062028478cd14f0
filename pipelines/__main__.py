"""`python -m pipelines local | compile | submit`."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from newfound.config import BatchConfig, TrainingConfig, load_config
from newfound.errors import ConfigError
from pipelines.running import run_main

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The pipelines, here and on Kubeflow.",
)
# Bound to this stdout: a run puts something else in its place.
console = Console(file=sys.stdout, highlight=False)

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML, complete and commented in pipelines/configs.")]
PlatformFile = Annotated[
    Path, typer.Option("--platform", help="YAML of the cluster, commented in pipelines/platforms.")
]
Interactions = Annotated[str | None, typer.Option(help="Your own interactions instead: Parquet or CSV.")]
Items = Annotated[str | None, typer.Option(help="Their items: Parquet or CSV; may be left out.")]
Folder = Annotated[str | None, typer.Option(help="Folder of a MovieLens or MovieTweetings copy.")]
Previous = Annotated[
    str, typer.Option(help="The release whose clusters live on under their ids: an id, `current`, or empty for none.")
]
LOCAL = Path("pipelines/configs/local.yaml")
PRODUCTION = Path("pipelines/configs/production.yaml")
PLATFORM = Path("pipelines/platforms/production.yaml")


@app.command("local")
def local_command(
    config: ConfigFile = LOCAL,
    interactions: Interactions = None,
    items: Items = None,
    folder: Folder = None,
    runs: Annotated[Path, typer.Option(help="Folder for outputs, cache and logs.")] = Path("runs/local"),
    releases: Annotated[str, typer.Option(help="Folder or URL of all releases.")] = "releases",
    previous: Previous = "",
    containers: Annotated[bool, typer.Option(help="Every step is a container, by Docker.")] = False,
) -> None:
    """Runs the training pipeline on this machine; what has not changed comes from the cache."""
    from pipelines.local import run_training
    from pipelines.summary import show_summary

    settings = _configured(config, interactions, items, folder)
    try:
        done = run_training(
            settings, runs=runs, releases=releases, console=console, previous=previous, in_containers=containers
        )
    except KeyboardInterrupt:
        console.print("stopped; the next run goes on after the last finished step")
        raise typer.Exit(130) from None
    show_summary(done, runs=runs, releases=releases, console=console)


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option(help="Folder for the KFP IR YAML.")] = Path("pipelines/compiled"),
    config: ConfigFile = PRODUCTION,
    platform: PlatformFile = PLATFORM,
) -> None:
    """Writes every pipeline as KFP IR YAML: as it runs on one machine, and as it runs on the cluster."""
    from pipelines.kubeflow import PIPELINES, compile_pipeline
    from pipelines.platform import load_platform

    settings, cluster = load_config(config), load_platform(platform)
    for name in PIPELINES:
        for target, file in ((None, f"{name}.yaml"), (cluster, f"{name}-{platform.stem}.yaml")):
            compile_pipeline(name, output / file, target, shards=_shards(name, settings, cluster.batch_shards))
            console.print(f"{escape(str(output / file))} written", soft_wrap=True)


@app.command("submit")
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
    from pipelines.kubeflow import PIPELINES, Access, submit
    from pipelines.kubeflow import wait as wait_for
    from pipelines.platform import load_platform

    if pipeline not in PIPELINES:
        raise ConfigError(f"{pipeline}: no such pipeline; expected one of {', '.join(PIPELINES)}")
    if cron is not None and wait:
        raise ConfigError("--wait: a schedule has no end to wait for; expected one of --cron and --wait")
    if cron is not None and pipeline in ("refresh", "interests"):
        raise ConfigError(
            f"--cron: {pipeline} goes by the release that serves when it is submitted; submit it when due"
        )
    settings, cluster = _configured(config, interactions, items, None), load_platform(platform)
    access = Access(host, namespace, _token(), os.environ.get("NEWFOUND_KFP_COOKIES"), ca_file)
    if cron is None:
        previous = _release_now(previous, releases)
    if previous == "current":  # read when the step runs, whatever it was before
        cluster = cluster.model_copy(update={"fresh": (*cluster.fresh, "build-clusters")})
    arguments = _arguments(pipeline, settings, releases, cluster, previous, out)
    submitted = submit(
        pipeline,
        arguments,
        cluster,
        access,
        experiment=experiment,
        run_name=name or _run_name(pipeline, config, settings, arguments),
        shards=_shards(pipeline, settings, cluster.batch_shards),
        cron=cron,
    )
    console.print(f"{'scheduled' if cron else 'submitted'}: {escape(submitted.name)}", soft_wrap=True)
    console.print(escape(submitted.page), soft_wrap=True)
    if wait:
        states = wait_for(pipeline, submitted, access, seconds=timeout, poll_s=poll)
        for step, state in states.items():
            console.print(f"{state.lower():<12}{escape(step)}")
        _show_gates(releases, pipeline)


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
    from pipelines import batch, interests, refresh
    from pipelines.settings import settings as every_step

    if pipeline == "training":
        return {**every_step(settings, cluster.image), "releases": releases, "previous": previous}
    if pipeline == "refresh":
        promote = cluster.canary is None
        settings = refresh.of_events(settings)
        return refresh.arguments(settings, releases, promote=promote, image=cluster.image)
    if pipeline == "interests":
        return interests.arguments(settings, releases, cluster.image)
    return batch.arguments(settings, BatchConfig(shards=cluster.batch_shards), releases, out=out, image=cluster.image)


def _shards(pipeline: str, settings: TrainingConfig, batch_shards: int) -> int:
    return batch_shards if pipeline == "batch" else settings.table.shards


def _token() -> str | None:
    """The bearer token: given, or the ServiceAccount's own, in the file that Kubeflow's clients look for in a pod.

    Raises:
        ConfigError: that file cannot be read.
    """
    file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if os.environ.get("NEWFOUND_KFP_TOKEN") or not file:
        return os.environ.get("NEWFOUND_KFP_TOKEN")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); expected the ServiceAccount's token") from error


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


def _configured(config: Path, interactions: str | None, items: str | None, folder: str | None) -> TrainingConfig:
    overrides: dict[str, object] = {}
    if interactions is not None:
        overrides = {"data.loader": "files", "data.interactions": interactions, "data.items": items}
    elif items is not None:
        raise typer.BadParameter("--items needs --interactions")
    if folder is not None:
        overrides["data.folder"] = folder
    return load_config(config, overrides)


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    run_main(app)


if __name__ == "__main__":
    main()
