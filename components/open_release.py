"""A published release as artifacts."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def open_release(
    releases: str,
    release: str,
    settings: str,
    clusters: Output[Artifact],
    planner: Output[Model],
    table: Output[Dataset],
    ranker: Output[Model],
    metrics: Output[Metrics],
):
    """Verifies a release and takes its parts out.

    Args:
        releases: folder or URL of all releases.
        release: its id.
        settings: nothing but the code's digest.
        clusters: interest clusters.
        planner: the planner; empty where there is no language model.
        table: the table that serves.
        ranker: the ranker.
        metrics: which release it is.
    """
    import tempfile
    from pathlib import Path

    from components._step import running
    from newfound.refresh import open_parts

    parts = {"clusters": clusters, "planner": planner, "table": table, "ranker": ranker}
    with running(settings, metrics, *parts.values()) as step, tempfile.TemporaryDirectory() as cache:
        out = {name: Path(part.path) for name, part in parts.items()}
        step.measures = open_parts(releases, release, out, Path(cache))
