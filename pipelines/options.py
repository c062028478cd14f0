"""Options that several commands share, and the configuration that they make together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from newfound.config import FOLDER_LOADERS, TrainingConfig, load_config

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
Runs = Annotated[Path, typer.Option(help="Folder for outputs, cache and logs.")]
Releases = Annotated[str, typer.Option(help="Folder or URL of all releases.")]
LOCAL: Final = Path("pipelines/configs/local.yaml")
PRODUCTION: Final = Path("pipelines/configs/production.yaml")
PLATFORM: Final = Path("pipelines/platforms/production.yaml")


def configured(
    config: Path, interactions: str | None = None, items: str | None = None, folder: str | None = None
) -> TrainingConfig:
    """The configuration, with other data where some is named; what is not named stays as it is configured."""
    overrides: dict[str, object] = {}
    if interactions is not None:
        overrides = {"data.loader": "files", "data.interactions": interactions}
    if items is not None:
        if interactions is None:
            raise typer.BadParameter("--items needs --interactions")
        overrides["data.items"] = items
    if folder is not None:
        overrides["data.folder"] = folder
        if interactions is None and load_config(config).data.loader not in FOLDER_LOADERS:
            overrides["data.loader"] = "movielens"
    return load_config(config, overrides)
