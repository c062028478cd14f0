"""Interest clusters."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def build_clusters(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    settings: str,
    clusters: Output[Artifact],
    metrics: Output[Metrics],
):
    """Embeds items, grows the tree, describes every cluster.

    Args:
        dataset: the data set.
        histories: the past, for co-consumption and traffic.
        settings: clusters, seed.
        clusters: tree.parquet, items.parquet, centroids.safetensors, clusters.json.
        metrics: counts and balance.
    """
    from pathlib import Path

    from components._step import running
    from newfound.clusters import build_clusters as build

    with running(settings, metrics, clusters) as step:
        inputs = (Path(dataset.path), Path(histories.path))
        step.measures = build(*inputs, step.config.clusters, step.config.seed, Path(clusters.path))
