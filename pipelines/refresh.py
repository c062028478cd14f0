"""The refresh pipeline: the table anew with recent successors, judged, published; nothing is retrained.

`python -m pipelines.refresh local | submit | compile`
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from kfp import dsl
from rich.console import Console
from rich.markup import escape

from components.apply_features import apply_features
from components.fetch_histories import fetch_histories
from components.judge_refresh import judge_refresh
from components.load_interactions import load_interactions
from components.mine_transitions import mine_transitions
from components.open_release import open_release
from components.publish_refresh import publish_refresh
from components.refresh_table import refresh_table
from newfound import release as published
from newfound.config import RefreshConfig, TrainingConfig, load_config
from newfound.errors import ConfigError, NewfoundError
from newfound.schema import TIME
from pipelines.settings import DATA_FILES, Step, step_settings

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split"), DATA_FILES),
    "features": Step("apply_features", ("features",), folders=("feature_repo",)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "opening": Step("open_release"),
    # As the training pipeline's refit: everybody's transitions, none withheld, and a table of the published size.
    "transitions": Step("mine_transitions", ("transitions",), refit=True),
    "table": Step("refresh_table", ("table",), refit=True),
    "judging": Step("judge_refresh", ("transitions",)),
    "publishing": Step("publish_refresh"),
}


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
    bounds: str,
    recent: float,
    releases: str,
    release: str,
    promote: bool = True,
):
    """Builds on the past, judges on the latest events, builds on everything, publishes.

    Args:
        data: settings of load_interactions; the cut sets the latest events apart.
        features: settings of apply_features.
        histories: settings of fetch_histories.
        opening: settings of open_release.
        transitions: settings of mine_transitions.
        table: settings of refresh_table.
        judging: settings of judge_refresh.
        publishing: settings of publish_refresh.
        bounds: RefreshConfig as JSON.
        recent: share of the transitions, the latest, that count as recent.
        releases: folder or URL of all releases.
        release: id of the release that is refreshed.
        promote: whether the new release serves at once; else it is a canary.
    """
    opened = open_release(releases=releases, release=release, settings=opening)
    clusters, planner = opened.outputs["clusters"], opened.outputs["planner"]
    dataset = load_interactions(settings=data).outputs["dataset"]
    store = apply_features(dataset=dataset, settings=features).outputs["features"]

    past = fetch_histories(dataset=dataset, features=store, settings=histories, as_of="cut").outputs["histories"]
    mined = mine_transitions(dataset=dataset, histories=past, clusters=clusters, settings=transitions)
    judged = refresh_table(
        planner=planner,
        clusters=clusters,
        transitions=mined.outputs["transitions"],
        settings=table,
        recent=recent,
    )
    passed = judge_refresh(
        before=opened.outputs["table"],
        after=judged.outputs["table"],
        dataset=dataset,
        clusters=clusters,
        settings=judging,
        bounds=bounds,
    )

    whole = fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end").after(passed)
    whole = whole.set_display_name("fetch-histories (refit)").outputs["histories"]
    remined = mine_transitions(dataset=dataset, histories=whole, clusters=clusters, settings=transitions)
    remined = remined.set_display_name("mine-transitions (refit)").outputs["transitions"]
    rebuilt = refresh_table(planner=planner, clusters=clusters, transitions=remined, settings=table, recent=recent)
    rebuilt = rebuilt.set_display_name("refresh-table (refit)").outputs["table"]
    publish_refresh(
        table=rebuilt,
        verdict=passed.outputs["verdict"],
        releases=releases,
        release=release,
        promote=promote,
        settings=publishing,
    )


def arguments(
    config: TrainingConfig, bounds: RefreshConfig, releases: str, *, promote: bool = True
) -> dict[str, object]:
    """The pipeline's arguments: the latest days are set apart by a global cut.

    Args:
        config: the training's configuration; `data.interactions` must be own files.
        bounds: what is recent, and what must hold.
        releases: folder or URL of all releases.
        promote: whether the new release serves at once.

    Raises:
        ConfigError: there are no files to read, no events in them, or no release.
    """
    if config.data.interactions is None:
        raise ConfigError("data.interactions: a refresh needs what people did lately; expected a Parquet file")
    release = published.current(releases)
    if release is None:
        raise ConfigError(f"{releases}: no release to refresh; the training pipeline makes the first")
    judged, recent = latest_shares(config.data.interactions, bounds)
    split = config.split.model_copy(update={"cut": "global", "future": judged})
    adapted = config.model_copy(update={"split": split})
    return {
        **{name: step_settings(step, adapted) for name, step in STEPS.items()},
        "bounds": bounds.model_dump_json(),
        "recent": recent,
        "releases": releases,
        "release": release,
        "promote": promote,
    }


def latest_shares(interactions: str, bounds: RefreshConfig) -> tuple[float, float]:
    """Shares of the events that lie in the days to judge on, and in the recent days.

    Args:
        interactions: Parquet file or URL.
        bounds: of how many days.

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
    for days in (bounds.judged_days, bounds.recent_days):
        since = newest - timedelta(days=days)
        shares.append(float(rows.filter(rows[TIME] > since).count().execute()) / total)
    if shares[0] >= 1:
        raise ConfigError(f"{interactions}: nothing is older than {bounds.judged_days:g} days; nothing to build on")
    return shares[0], min(1.0, shares[1])


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(file=sys.stdout, highlight=False)
ConfigFile = Annotated[Path, typer.Option("--config", help="The training's YAML.")]
Interactions = Annotated[str, typer.Option(help="`python -m monitoring interactions` writes them.")]
Promote = Annotated[bool, typer.Option(help="Serve the new release at once; else it is a canary.")]


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

    settings = _configured(config, interactions)
    given = arguments(settings, RefreshConfig(), releases, promote=promote)
    done = run_pipeline(refresh, given, runs=runs, threads=settings.threads, console=console)
    verdict = json.loads(done.artifacts["verdict"].read_text(encoding="utf-8"))
    for name, gate in verdict["gates"].items():
        console.print(f"gate {name}: {gate['value']:.3g}, at least {gate['bound']:g} was asked for")
    release = json.loads(done.artifacts["published"].read_text(encoding="utf-8"))["release"]
    console.print(f"release: {escape(release)}")


@app.command("submit")
def submit_command(
    host: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    releases: Annotated[str, typer.Option(help="URL of all releases, as the cluster sees it.")],
    interactions: Annotated[str | None, typer.Option(help="Their URL; the configuration's where absent.")] = None,
    config: ConfigFile = Path("pipelines/configs/production.yaml"),
    experiment: Annotated[str, typer.Option(help="Experiment that the run belongs to.")] = "newfound",
    name: Annotated[str | None, typer.Option(help="Name of the run; by time if absent.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Profile, where Kubeflow serves several users.")] = None,
    promote: Promote = True,
) -> None:
    """Starts the refresh on Kubeflow."""
    from pipelines.kubeflow import submit_pipeline

    settings = _configured(config, interactions or load_config(config).data.interactions)
    given = arguments(settings, RefreshConfig(), releases, promote=promote)
    called = name or f"refresh {datetime.now(UTC):%Y-%m-%d %H:%M}"
    page = submit_pipeline(refresh, given, host=host, experiment=experiment, name=called, namespace=namespace)
    console.print(f"submitted: {escape(page)}")


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option(help="The KFP IR YAML.")] = Path("pipelines/compiled/refresh.yaml"),
) -> None:
    """Writes the pipeline as KFP IR YAML."""
    from kfp import compiler

    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(refresh, str(output))
    console.print(f"{escape(str(output))} written")


def _configured(config: Path, interactions: str | None) -> TrainingConfig:
    overrides: dict[str, object] = {"data.loader": "files", "data.interactions": interactions, "data.items": None}
    return load_config(config, {**overrides, "data.min_user_events": 1, "data.min_item_events": 1})


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
