"""The refresh pipeline: the table anew with recent successors, judged, published; nothing is retrained.

`python -m pipelines.refresh local`; `python -m pipelines submit refresh` on Kubeflow.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from kfp import dsl
from rich.console import Console
from rich.markup import escape

from components.deploy_release import deploy_release
from components.fetch_histories import fetch_histories
from components.judge_refresh import judge_refresh
from components.load_interactions import load_interactions
from components.mine_transitions import mine_transitions
from components.open_release import open_release
from components.publish_refresh import publish_refresh
from components.refresh_table import refresh_table
from components.write_features import write_features
from newfound.config import RefreshConfig, TrainingConfig, load_config
from newfound.errors import ConfigError
from newfound.release import store as published
from newfound.schema import TIME
from pipelines.platform import Platform, placing
from pipelines.running import run_main
from pipelines.settings import DATA_FILES, Step, step_settings

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split"), DATA_FILES),
    "features": Step("write_features", ("features",)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "opening": Step("open_release"),
    # As the training pipeline's refit: everybody's transitions, none withheld, and a table of the published size.
    "transitions": Step("mine_transitions", ("transitions",), refit=True),
    "table": Step("refresh_table", ("table",), refit=True),
    "judging": Step("judge_refresh", ("transitions", "refresh")),
    "publishing": Step("publish_refresh"),
}


def define_refresh(platform: Platform | None = None) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
    """
    place, place_always = placing(platform)

    @dsl.pipeline(name="newfound-refresh", description="The table of the current release anew, with recent successors")
    def refresh(
        data: str,
        features: str,
        histories: str,
        opening: str,
        transitions: str,
        table: str,
        judging: str,
        publishing: str,
        recent: float,
        releases: str,
        release: str,
        promote: bool = True,
    ):
        """Builds on the past, judges on the latest events, builds on everything, publishes.

        Args:
            data: settings of load_interactions; the cut sets the latest events apart.
            features: settings of write_features.
            histories: settings of fetch_histories.
            opening: settings of open_release.
            transitions: settings of mine_transitions.
            table: settings of refresh_table.
            judging: settings of judge_refresh, the gates' bounds among them.
            publishing: settings of publish_refresh.
            recent: share of the transitions, the latest, that count as recent.
            releases: folder or URL of all releases.
            release: id of the release that is refreshed.
            promote: whether the new release serves at once; else it is a canary.
        """
        opened = place(open_release(releases=releases, release=release, settings=opening))
        clusters, planner = opened.outputs["clusters"], opened.outputs["planner"]
        dataset = place(load_interactions(settings=data)).outputs["dataset"]
        store = place(write_features(dataset=dataset, settings=features)).outputs["features"]

        past = place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="cut"))
        past = past.outputs["histories"]
        mined = place(mine_transitions(dataset=dataset, histories=past, clusters=clusters, settings=transitions))
        judged = refresh_table(
            planner=planner,
            clusters=clusters,
            transitions=mined.outputs["transitions"],
            settings=table,
            recent=recent,
        )
        judged = place(judged)
        passed = judge_refresh(
            before=opened.outputs["table"],
            after=judged.outputs["table"],
            dataset=dataset,
            clusters=clusters,
            settings=judging,
        )
        passed = place(passed)

        whole = place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end")).after(passed)
        whole = whole.set_display_name("fetch-histories (refit)").outputs["histories"]
        remined = place(mine_transitions(dataset=dataset, histories=whole, clusters=clusters, settings=transitions))
        remined = remined.set_display_name("mine-transitions (refit)").outputs["transitions"]
        rebuilt = refresh_table(planner=planner, clusters=clusters, transitions=remined, settings=table, recent=recent)
        rebuilt = place(rebuilt).set_display_name("refresh-table (refit)").outputs["table"]
        new = publish_refresh(
            table=rebuilt,
            verdict=passed.outputs["verdict"],
            releases=releases,
            release=release,
            promote=promote,
            settings=publishing,
        )
        new = place_always(new)
        if platform is not None and platform.canary is not None:
            deployed = deploy_release(
                published=new.outputs["published"],
                gates=passed.outputs["verdict"],
                settings=judging,
                canary=platform.canary.model_dump_json(),
            )
            place_always(deployed)

    return refresh


refresh = define_refresh()


def arguments(
    config: TrainingConfig, releases: str, *, promote: bool = True, image: str | None = None
) -> dict[str, object]:
    """The pipeline's arguments: the latest days are set apart by a global cut.

    Args:
        config: the training's configuration; `data.interactions` must be own files, and `refresh` says what is recent.
        releases: folder or URL of all releases.
        promote: whether the new release serves at once.
        image: of the steps, on a cluster.

    Raises:
        ConfigError: there are no files to read, no events in them, or no release.
    """
    if config.data.interactions is None:
        raise ConfigError("data.interactions: a refresh needs what people did lately; expected a Parquet file")
    release = published.current(releases)
    if release is None:
        raise ConfigError(f"{releases}: no release to refresh; the training pipeline makes the first")
    judged, recent = latest_shares(config.data.interactions, config.refresh)
    split = config.split.model_copy(update={"cut": "global", "future": judged})
    adapted = config.model_copy(update={"split": split})
    return {
        **{name: step_settings(step, adapted, image) for name, step in STEPS.items()},
        "recent": recent,
        "releases": releases,
        "release": release,
        "promote": promote,
    }


def latest_shares(interactions: str, config: RefreshConfig) -> tuple[float, float]:
    """Shares of the events that lie in the days to judge on, and in the recent days.

    Args:
        interactions: Parquet file or URL.
        config: of how many days.

    Raises:
        ConfigError: the file cannot be read, holds no events, or all of them are of the latest days.
    """
    import duckdb
    import fsspec
    import ibis

    connection = ibis.duckdb.connect()
    try:
        if "://" in interactions:
            connection.register_filesystem(fsspec.core.url_to_fs(interactions)[0])
        rows = connection.read_parquet(interactions)
    except (OSError, duckdb.Error) as error:
        raise ConfigError(
            f"{interactions}: cannot be read ({type(error).__name__}); expected a Parquet file"
        ) from error
    newest = rows[TIME].max().execute()
    total = rows.count().execute()
    if not total:
        raise ConfigError(f"{interactions}: no events; expected what people did lately")
    shares = []
    for days in (config.judged_days, config.recent_days):
        since = newest - timedelta(days=days)
        shares.append(float(rows.filter(rows[TIME] > since).count().execute()) / total)
    if shares[0] >= 1:
        raise ConfigError(f"{interactions}: nothing is older than {config.judged_days:g} days; nothing to build on")
    return shares[0], min(1.0, shares[1])


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(file=sys.stdout, highlight=False)
ConfigFile = Annotated[Path, typer.Option("--config", help="The training's YAML.")]
Interactions = Annotated[str, typer.Option(help="`python -m monitoring interactions` writes them.")]
Promote = Annotated[bool, typer.Option(help="Serve the new release at once; else it is a canary.")]


@app.callback()
def _commands() -> None:
    """The refresh on this machine."""
    # Typer drops the name of an only command where there is no callback.


@app.command("local")
def local_command(
    interactions: Interactions = "runs/monitoring/interactions.parquet",
    config: ConfigFile = Path("pipelines/configs/local.yaml"),
    runs: Annotated[Path, typer.Option(help="Folder for outputs, cache and logs.")] = Path("runs/refresh"),
    releases: Annotated[str, typer.Option(help="Folder or URL of all releases.")] = "releases",
    promote: Promote = True,
) -> None:
    """Runs the refresh on this machine."""
    from pipelines.local import run_pipeline

    settings = of_events(load_config(config, {"data.interactions": interactions}))
    given = arguments(settings, releases, promote=promote)
    done = run_pipeline(refresh, given, runs=runs, threads=settings.threads, console=console)
    verdict = json.loads(done.artifacts["verdict"].read_text(encoding="utf-8"))
    for name, gate in verdict["gates"].items():
        console.print(f"gate {name}: {gate['value']:.3g}, at least {gate['bound']:g} was asked for")
    release = json.loads(done.artifacts["published"].read_text(encoding="utf-8"))["release"]
    console.print(f"release: {escape(release)}")


def of_events(config: TrainingConfig) -> TrainingConfig:
    """The configuration for what people did lately: events alone, and nobody left out for having few of them."""
    changes = {"loader": "files", "items": None, "min_user_events": 1, "min_item_events": 1}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    run_main(app)


if __name__ == "__main__":
    main()
