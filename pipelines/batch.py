"""The batch pipeline: slates for everybody from the release that serves, for who wants files rather than requests.

`python -m pipelines local batch` here; `python -m pipelines submit batch` on Kubeflow.
"""

from typing import Any, Final

from kfp import dsl

from components.fetch_histories import fetch_histories
from components.load_interactions import load_interactions
from components.recommend_batch import recommend_batch
from components.write_features import write_features
from newfound.config import BatchConfig, TrainingConfig
from newfound.release.new_items import find_new_items
from newfound.release.store import current
from newfound.release.takedown import read_takedown
from pipelines.placement import Placement
from pipelines.platform import Platform
from pipelines.settings import DATA_FILES, TABLES, Step, settings_of, step_settings

STEPS: Final = {
    "data": Step("load_interactions", ("data", "split", *TABLES), DATA_FILES),
    "features": Step("write_features", ("features", *TABLES)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "recommending": Step("recommend_batch"),
}


def define_batch(platform: Platform | None = None, shards: int = 1) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
        shards: of the users.
    """
    steps = Placement(platform)

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
        dataset = steps.place(load_interactions(settings=data)).outputs["dataset"]
        store = steps.place(write_features(dataset=dataset, settings=features)).outputs["features"]
        past = steps.place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end"))
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
            steps.place_always(recommend_batch(shard=shard, **given))

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
    given: dict[str, object] = {**settings_of(STEPS, config, image)}
    if image is None:
        # No setting, but a cached slate must not show what was taken down since, nor lack what was added. A cluster
        # caches no slates.
        listed = read_takedown(releases)
        serving = release or current(releases)
        new = find_new_items(releases, serving) if serving else None
        more: dict[str, object] = {"items": sorted(listed.items), "clusters": sorted(listed.clusters)}
        more["new_items"] = [] if new is None else [new.made.isoformat(), *new.ids]
        given["recommending"] = step_settings(STEPS["recommending"], config, more=more)
    return {
        **given,
        "batch": batch.model_dump_json(),
        "releases": releases,
        "release": release,
        "out": out,
    }
