"""The refresh pipeline: the table anew from recent choices, judged, published; nothing is read again.

`python -m pipelines local refresh` here; `python -m pipelines submit refresh` on Kubeflow.
"""

from datetime import timedelta
from typing import Any, Final

from kfp import dsl

from components.fetch_histories import fetch_histories
from components.judge_refresh import judge_refresh
from components.load_interactions import load_interactions
from components.mine_transitions import mine_transitions
from components.open_release import open_release
from components.publish_refresh import publish_refresh
from components.refresh_table import refresh_table
from components.write_features import write_features
from newfound.config import RefreshConfig, TrainingConfig
from newfound.errors import ConfigError
from newfound.release import store as published
from newfound.schema import TIME
from pipelines.placement import Placement
from pipelines.platform import Platform
from pipelines.settings import DATA_FILES, TABLES, Step, settings_of

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split", *TABLES), DATA_FILES),
    "features": Step("write_features", ("features", *TABLES)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "opening": Step("open_release"),
    # As the training pipeline's refit: everybody's transitions, none withheld, and a table of the published size.
    "transitions": Step("mine_transitions", ("transitions", *TABLES), refit=True),
    "table": Step("refresh_table", ("table",), refit=True),
    "judging": Step("judge_refresh", ("transitions", "refresh", *TABLES)),
    "publishing": Step("publish_refresh"),
}


def define_refresh(platform: Platform | None = None) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
    """
    steps = Placement(platform)

    @dsl.pipeline(name="newfound-refresh", description="The table of the current release anew, from recent choices")
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
        given = dict(locals())  # every step's settings, by parameter
        opened = steps.place(open_release(releases=releases, release=release, settings=opening)).outputs
        dataset = steps.place(load_interactions(settings=data)).outputs["dataset"]
        store = steps.place(write_features(dataset=dataset, settings=features)).outputs["features"]
        judged = _rebuild(steps, given, opened, dataset, store)
        verdict = judge_refresh(
            before=opened["table"], after=judged, dataset=dataset, clusters=opened["clusters"], settings=judging
        )
        verdict = steps.place(verdict)
        rebuilt = _rebuild(steps, given, opened, dataset, store, passed=verdict)
        new = publish_refresh(
            table=rebuilt,
            verdict=verdict.outputs["verdict"],
            releases=releases,
            release=release,
            promote=promote,
            settings=publishing,
        )
        published = steps.place_always(new).outputs["published"]
        steps.deploy(published=published, gates=verdict.outputs["verdict"], settings=judging)

    return refresh


def _rebuild(steps: Placement, given: dict[str, Any], opened: Any, dataset: Any, store: Any, passed: Any = None) -> Any:
    """The table anew: on the past, or, once the gates have held, on everything."""
    refit = passed is not None
    known = fetch_histories(
        dataset=dataset, features=store, settings=given["histories"], as_of="end" if refit else "cut"
    )
    known = steps.place(known, refit=refit)
    if refit:
        known.after(passed)
    clusters = opened["clusters"]
    mined = mine_transitions(
        dataset=dataset, histories=known.outputs["histories"], clusters=clusters, settings=given["transitions"]
    )
    mined = steps.place(mined, refit=refit).outputs["transitions"]
    inputs = {"planner": opened["planner"], "clusters": clusters, "transitions": mined}
    table = refresh_table(**inputs, settings=given["table"], recent=given["recent"])
    return steps.place(table, refit=refit).outputs["table"]


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
        **settings_of(STEPS, adapted, image),
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


def of_events(config: TrainingConfig) -> TrainingConfig:
    """The configuration for what people did lately: events alone, and nobody left out for having few of them."""
    changes = {"loader": "files", "items": None, "min_user_events": 1, "min_item_events": 1}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})
