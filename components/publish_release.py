"""The release."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def publish_release(
    dataset: Input[Dataset],
    clusters: Input[Artifact],
    planner: Input[Model],
    table: Input[Dataset],
    ranker: Input[Model],
    decision: Input[Artifact],
    evaluation: Input[Artifact],
    gates: Input[Artifact],
    settings: str,
    releases: str,
    release: Output[Artifact],
    metrics: Output[Metrics],
    promote: bool = True,
):
    """Publishes what was refitted on all data, with the measures of the evaluated fit.

    Args:
        dataset: the data set, for titles and lineage.
        clusters: interest clusters.
        planner: refitted planner.
        table: refitted table.
        ranker: refitted ranker.
        decision: the measured coefficients, with terms of the refit.
        evaluation: metrics.json of the evaluated fit.
        gates: gates.json, all of which held.
        settings: the whole configuration.
        releases: folder or URL of all releases.
        release: a record that names the release.
        metrics: its size.
        promote: whether it serves at once; else it is a canary, unless it is the first.
    """
    from pathlib import Path

    from components._step import running
    from newfound.release.assemble import publish_parts

    with running(settings, metrics, release) as step:
        inputs = (dataset, clusters, planner, table, ranker, decision, evaluation, gates)
        paths = (Path(one.path) for one in inputs)
        step.measures = publish_parts(*paths, step.config, releases, Path(release.path), promote)
        release.metadata.update(root=releases, release=step.measures["release"])
