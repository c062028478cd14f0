"""`python -m pipelines local training|refresh|batch | profile | compile | submit | resume`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from newfound.config import BatchConfig, load_config
from newfound.errors import ConfigError, NewfoundError
from pipelines.options import (
    LOCAL,
    PLATFORM,
    PRODUCTION,
    ConfigFile,
    Folder,
    Interactions,
    Items,
    PlatformFile,
    Previous,
    Releases,
    Runs,
    configured,
    console,
)
from pipelines.submission import resume_command, submit_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The pipelines, here and on Kubeflow.",
)
local = typer.Typer(no_args_is_help=True, help="A pipeline on this machine; what has not changed comes from the cache.")
app.add_typer(local, name="local")
app.command("submit")(submit_command)
app.command("resume")(resume_command)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Ends an interrupted run with a word rather than a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; the next run goes on after the last finished step")
        raise typer.Exit(130) from None


@local.command("training")
def training_command(
    config: ConfigFile = LOCAL,
    interactions: Interactions = None,
    items: Items = None,
    folder: Folder = None,
    runs: Runs = Path("runs/local"),
    releases: Releases = "releases",
    previous: Previous = "",
    containers: Annotated[bool, typer.Option(help="Every step is a container, by Docker.")] = False,
) -> None:
    """Interactions to a release."""
    from pipelines.local import run_training
    from pipelines.summary import show_summary

    settings = configured(config, interactions, items, folder)
    given = {"runs": runs, "releases": releases, "previous": previous, "in_containers": containers}
    with _stoppable():
        done = run_training(settings, console=console, **given)  # type: ignore[arg-type]
    show_summary(done, runs=runs, releases=releases, console=console)


@local.command("refresh")
def refresh_command(
    interactions: Annotated[
        str, typer.Option(help="What people did lately; `python -m monitoring interactions` writes it.")
    ] = "runs/monitoring/interactions.parquet",
    config: ConfigFile = LOCAL,
    runs: Runs = Path("runs/refresh"),
    releases: Releases = "releases",
    promote: Annotated[bool, typer.Option(help="Serve the new release at once; else it is a canary.")] = True,
) -> None:
    """The serving release's table anew, from recent choices."""
    from pipelines.local import run_pipeline
    from pipelines.refresh import arguments, of_events, refresh

    settings = of_events(load_config(config, {"data.interactions": interactions}))
    given = arguments(settings, releases, promote=promote)
    with _stoppable():
        done = run_pipeline(refresh, given, runs=runs, threads=settings.threads, console=console)
    verdict = json.loads(done.artifacts["verdict"].read_text(encoding="utf-8"))
    for name, gate in verdict["gates"].items():
        console.print(f"gate {name}: {gate['value']:.3g}, at least {gate['bound']:g} was asked for")
    release = json.loads(done.artifacts["published"].read_text(encoding="utf-8"))["release"]
    console.print(f"release: {escape(release)}")


@local.command("batch")
def batch_command(
    config: ConfigFile = LOCAL,
    interactions: Interactions = None,
    runs: Runs = Path("runs/batch"),
    releases: Releases = "releases",
    out: Annotated[str, typer.Option(help="Folder or URL for the slates; empty: the run's own alone.")] = "",
    k: Annotated[int | None, typer.Option(help="Items of a slate.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = 0,
) -> None:
    """Everybody's slate from the serving release."""
    from newfound.release.store import current
    from pipelines.batch import arguments, define_batch
    from pipelines.local import run_pipeline

    settings = configured(config, interactions)
    release = current(releases)
    if release is None:
        raise ConfigError(f"{releases}: no release to recommend from; the training pipeline makes the first")
    given = arguments(settings, BatchConfig(k=k, seed=seed), releases, release=release, out=out)
    with _stoppable():
        done = run_pipeline(define_batch(), given, runs=runs, threads=settings.threads, console=console)
    console.print(f"slates: {escape(str(done.artifacts['slates'] / 'slates.parquet'))}", soft_wrap=True)


@app.command("profile")
def profile_command(runs: Runs = Path("runs/local")) -> None:
    """Usage of every step of the last local run: seconds, processor seconds, peak memory."""
    from pipelines.profile import profile_table, read_profile

    console.print(profile_table(read_profile(runs)))


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option(help="Folder for the KFP IR YAML.")] = Path("pipelines/compiled"),
    config: ConfigFile = PRODUCTION,
    platform: PlatformFile = PLATFORM,
) -> None:
    """Writes every pipeline as KFP IR YAML: as it runs on one machine, and as it runs on the cluster."""
    from pipelines.kubeflow import PIPELINES, compile_pipeline, shards_of
    from pipelines.platform import load_platform

    settings, cluster = load_config(config), load_platform(platform)
    for name in PIPELINES:
        for target, file in ((None, f"{name}.yaml"), (cluster, f"{name}-{platform.stem}.yaml")):
            compile_pipeline(name, output / file, target, shards=shards_of(name, settings, cluster))
            console.print(f"{escape(str(output / file))} written", soft_wrap=True)


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
