"""`python -m pipelines local | compile | submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from newfound.config import TrainingConfig, load_config
from newfound.errors import NewfoundError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The training pipeline, here and on Kubeflow.",
)
# Bound to this stdout: a run puts something else in its place.
console = Console(file=sys.stdout, highlight=False)

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML, complete and commented in pipelines/configs.")]
Interactions = Annotated[str | None, typer.Option(help="Your own interactions instead: Parquet or CSV.")]
Items = Annotated[str | None, typer.Option(help="Their items: Parquet or CSV; may be left out.")]
Folder = Annotated[str | None, typer.Option(help="Folder of a MovieLens or MovieTweetings copy.")]
LOCAL = Path("pipelines/configs/local.yaml")


@app.command("local")
def local_command(
    config: ConfigFile = LOCAL,
    interactions: Interactions = None,
    items: Items = None,
    folder: Folder = None,
    runs: Annotated[Path, typer.Option(help="Folder for outputs, cache and logs.")] = Path("runs/local"),
    releases: Annotated[str, typer.Option(help="Folder or URL of all releases.")] = "releases",
) -> None:
    """Runs the pipeline on this machine; what has not changed comes from the cache."""
    from pipelines.local import run_training
    from pipelines.summary import show_summary

    settings = _configured(config, interactions, items, folder)
    try:
        done = run_training(settings, runs=runs, releases=releases, console=console)
    except KeyboardInterrupt:
        console.print("stopped; the next run goes on after the last finished step")
        raise typer.Exit(130) from None
    show_summary(done, runs=runs, releases=releases, console=console)


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option(help="The KFP IR YAML.")] = Path("pipelines/compiled/training.yaml"),
    config: Annotated[Path | None, typer.Option("--config", help="Its settings become the defaults.")] = None,
) -> None:
    """Writes the very same pipeline as KFP IR YAML."""
    from pipelines.kubeflow import compile_training

    compile_training(output, None if config is None else load_config(config))
    console.print(f"{escape(str(output))} written")


@app.command("submit")
def submit_command(
    host: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    releases: Annotated[str, typer.Option(help="URL of all releases, as the cluster sees it.")],
    config: ConfigFile = Path("pipelines/configs/production.yaml"),
    interactions: Interactions = None,
    items: Items = None,
    experiment: Annotated[str, typer.Option(help="Experiment that the run belongs to.")] = "newfound",
    name: Annotated[str | None, typer.Option(help="Name of the run; by data and time if absent.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Profile, where Kubeflow serves several users.")] = None,
) -> None:
    """Starts the pipeline on Kubeflow."""
    from pipelines.kubeflow import submit_training

    page = submit_training(
        _configured(config, interactions, items, None),
        host=host,
        experiment=experiment,
        name=name,
        namespace=namespace,
        releases=releases,
    )
    console.print(f"submitted: {escape(page)}")


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
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
