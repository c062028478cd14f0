"""The interests that people have had, for the release that has just been published."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def publish_interests(
    dataset: Input[Dataset],
    features: Input[Artifact],
    clusters: Input[Artifact],
    settings: str,
    interests: Output[Dataset],
    metrics: Output[Metrics],
):
    """Applies the feature repository and fills the online store: everybody's history and seen leaves.

    Args:
        dataset: the data set, for the whole look-back.
        features: a feature store's folder with its source files.
        clusters: the release's clusters.
        settings: nothing but the code's digest.
        interests: the rows that were written.
        metrics: counts.
    """
    from pathlib import Path

    from components._step import running
    from feature_repo.store import apply, materialise, open_store, upload
    from newfound.clusters import Clusters
    from newfound.features.user_interests import write_interests
    from newfound.schema import USER_HISTORY, USER_INTERESTS

    with running(settings, metrics, interests) as step:
        rows, tree = Path(interests.path), Path(clusters.path)
        digest = Clusters.load(tree).digest
        step.measures = write_interests(Path(dataset.path), tree / "items.parquet", digest, rows)
        store = open_store(Path(features.path))
        apply(store)
        for source, view in ((Path(features.path) / f"{USER_HISTORY}.parquet", USER_HISTORY), (rows, USER_INTERESTS)):
            upload(source, view)
            materialise(store, [view])
