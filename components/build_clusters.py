"""Interest clusters."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def build_clusters(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    releases: str,
    previous: str,
    settings: str,
    clusters: Output[Artifact],
    metrics: Output[Metrics],
):
    """Embeds items, grows the tree, describes every cluster.

    Args:
        dataset: the data set.
        histories: the past, for co-consumption and traffic.
        releases: folder or URL of all releases.
        previous: the release whose clusters live on, an id or `current`; empty: none.
        settings: clusters, seed.
        clusters: tree.parquet, items.parquet, centroids.safetensors, clusters.json.
        metrics: counts and balance, and what changed against `previous`.
    """
    import tempfile
    from pathlib import Path

    from components._step import running
    from newfound.clusters import build_clusters as build
    from newfound.release.assemble import earlier_clusters

    with running(settings, metrics, clusters) as step, tempfile.TemporaryDirectory() as cache:
        given = (Path(dataset.path), Path(histories.path), step.config.clusters, step.config.seed, Path(clusters.path))
        step.measures = build(*given, previous=earlier_clusters(releases, previous, Path(cache)))
