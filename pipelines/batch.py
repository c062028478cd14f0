"""The batch pipeline: slates for everybody from the release that serves, for who wants files rather than requests.

`python -m pipelines.batch local`; `python -m pipelines submit batch` on Kubeflow.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from kfp import dsl
from rich.console import Console
from rich.markup import escape

from components.fetch_histories import fetch_histories
from components.load_interactions import load_interactions
from components.recommend_batch import recommend_batch
from components.write_features import write_features
from newfound.config import BatchConfig, TrainingConfig, load_config
from newfound.errors import ConfigError
from newfound.release import store as published
from newfound.release.takedown import read_takedown
from pipelines.platform import Platform, placing
from pipelines.running import run_main
from pipelines.settings import DATA_FILES, Step, step_settings

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split"), DATA_FILES),
    "features": Step("write_features", ("features",)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "recommending": Step("recommend_batch"),
}


def define_batch(platform: Platform | None = None, shards: int = 1) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
        shards: of the users.
    """
    place, place_always = placing(platform)

    @dsl.pipeline(name="newfound-batch", description="Slates for everybody from the release that serves")
    def batch(
        data: str,
        features: str,
        histories: str,
        recommending: str,
        batch: str,
        releases: str,
        release: str = "",
        out: str = "",
    ):
        """Loads what people did, fetches their histories, recommends.

        Args:
            data: settings of load_interactions.
            features: settings of write_features.
            histories: settings of fetch_histories.
            recommending: settings of recommend_batch.
            batch: BatchConfig as JSON.
            releases: folder or URL of all releases.
            release: id; empty means the one that serves when the step runs.
            out: folder or URL for the slates beside the artifacts; empty for none.
        """
        dataset = place(load_interactions(settings=data)).outputs["dataset"]
        store = place(write_features(dataset=dataset, settings=features)).outputs["features"]
        past = place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end"))
        given = {
            "histories": past.outputs["histories"],
            "settings": recommending,
            "batch": batch,
            "releases": releases,
            "release": release,
            "out": out,
        }
        if platform is None:
            recommend_batch(shard=0, **given)
            return
        with dsl.ParallelFor(list(range(shards)), parallelism=platform.batch_shards_at_once) as shard:
            place_always(recommend_batch(shard=shard, **given))

    return batch


def arguments(
    config: TrainingConfig,
    batch: BatchConfig,
    releases: str,
    *,
    release: str = "",
    out: str = "",
    image: str | None = None,
) -> dict[str, object]:
    """The pipeline's arguments.

    Args:
        config: the training's configuration, for the data.
        batch: sizes, seed, shards.
        releases: folder or URL of all releases.
        release: id; empty means the one that serves when the step runs.
        out: folder or URL for a copy.
        image: of the steps, on a cluster.
    """
    given: dict[str, object] = {name: step_settings(step, config, image) for name, step in STEPS.items()}
    if image is None:
        # No setting, but a cached slate must not show what was taken down since. A cluster caches no slates.
        listed = read_takedown(releases)
        more = {"items": sorted(listed.items), "clusters": sorted(listed.clusters)}
        given["recommending"] = step_settings(STEPS["recommending"], config, more=more)
    return {
        **given,
        "batch": batch.model_dump_json(),
        "releases": releases,
        "release": release,
        "out": out,
    }


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(file=sys.stdout, highlight=False)


@app.callback()
def _commands() -> None:
    """Slates for everybody."""


@app.command("local")
def local_command(
    config: Annotated[Path, typer.Option("--config", help="The training's YAML.")] = Path(
        "pipelines/configs/local.yaml"
    ),
    interactions: Annotated[str | None, typer.Option(help="Your own interactions: Parquet or CSV.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder for outputs, cache and logs.")] = Path("runs/batch"),
    releases: Annotated[str, typer.Option(help="Folder or URL of all releases.")] = "releases",
    out: Annotated[str, typer.Option(help="Folder or URL for the slates; empty: the run's own alone.")] = "",
    k: Annotated[int | None, typer.Option(help="Items of a slate.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = 0,
) -> None:
    """Writes everybody's slate on this machine."""
    from pipelines.local import run_pipeline

    changes = {} if interactions is None else {"data.loader": "files", "data.interactions": interactions}
    settings = load_config(config, {**changes, **({} if interactions is None else {"data.items": None})})
    release = published.current(releases)
    if release is None:
        raise ConfigError(f"{releases}: no release to recommend from; the training pipeline makes the first")
    given = arguments(settings, BatchConfig(k=k, seed=seed), releases, release=release, out=out)
    done = run_pipeline(define_batch(), given, runs=runs, threads=settings.threads, console=console)
    console.print(f"slates: {escape(str(done.artifacts['slates'] / 'slates.parquet'))}", soft_wrap=True)


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    run_main(app)


if __name__ == "__main__":
    main()
