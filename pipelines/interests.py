"""The interests pipeline: who has had which interest already, written for the release that serves.

A training that ends in a canary leaves this out, since the release beside the canary serves nearly everybody; a canary
that was promoted, or a rollback to other clusters, is followed by it. `python -m pipelines submit interests`
"""

from typing import Any, Final

from kfp import dsl

from components.load_interactions import load_interactions
from components.open_release import open_release
from components.publish_interests import publish_interests
from components.write_features import write_features
from newfound.config import TrainingConfig
from newfound.errors import ConfigError
from newfound.release import store as published
from pipelines.placement import Placement
from pipelines.platform import Platform
from pipelines.settings import DATA_FILES, TABLES, Step, settings_of

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split", *TABLES), DATA_FILES),
    "features": Step("write_features", ("features", *TABLES)),
    "opening": Step("open_release"),
    "writing": Step("publish_interests", TABLES, folders=("feature_repo",)),
}


def define_interests(platform: Platform | None = None) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
    """
    steps = Placement(platform)

    @dsl.pipeline(name="newfound-interests", description="Who has had which interest, for the release that serves")
    def interests(data: str, features: str, opening: str, writing: str, releases: str, release: str):
        """Opens the release, reads what people did, writes their interests.

        Args:
            data: settings of load_interactions.
            features: settings of write_features.
            opening: settings of open_release.
            writing: settings of publish_interests.
            releases: folder or URL of all releases.
            release: id of the one that serves.
        """
        opened = steps.place(open_release(releases=releases, release=release, settings=opening))
        dataset = steps.place(load_interactions(settings=data)).outputs["dataset"]
        store = steps.place(write_features(dataset=dataset, settings=features)).outputs["features"]
        given = {"dataset": dataset, "features": store, "clusters": opened.outputs["clusters"]}
        steps.place_always(publish_interests(**given, settings=writing))

    return interests


def arguments(config: TrainingConfig, releases: str, image: str | None = None) -> dict[str, object]:
    """The pipeline's arguments.

    Args:
        config: the training's configuration, for the data.
        releases: folder or URL of all releases.
        image: of the steps, on a cluster.

    Raises:
        ConfigError: no release serves.
    """
    release = published.current(releases)
    if release is None:
        raise ConfigError(f"{releases}: no release serves; the training pipeline makes the first")
    return {**settings_of(STEPS, config, image), "releases": releases, "release": release}
