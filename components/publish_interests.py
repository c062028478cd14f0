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
    """Fills the online store with everybody's seen leaves.

    Args:
        dataset: the data set, for the whole look-back.
        features: the feature store's folder.
        clusters: the release's clusters.
        settings: nothing but the code's digest.
        interests: the rows that were written.
        metrics: counts.
    """
    from pathlib import Path

    from components._features import INTERESTS, materialise, open_store, upload
    from components._step import running
    from newfound.interests import write_interests

    with running(settings, metrics, interests) as step:
        rows = Path(interests.path)
        step.measures = write_interests(Path(dataset.path), Path(clusters.path), rows)
        store = open_store(Path(features.path))
        upload(rows, INTERESTS)
        materialise(store, INTERESTS)
