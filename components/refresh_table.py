"""The transition table of recent choices."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def refresh_table(
    planner: Input[Model],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    settings: str,
    recent: float,
    table: Output[Dataset],
    metrics: Output[Metrics],
):
    """Fits the planner's rows to recent choices, and builds the table of them.

    Args:
        planner: the release's planner.
        clusters: the release's clusters.
        transitions: mined from everybody's events.
        settings: table, threads.
        recent: share of the transitions, the latest, that count as recent.
        table: contexts.npy, log_probs.npy, table.json.
        metrics: counts and speed.
    """
    from pathlib import Path

    from components._step import running
    from newfound.refresh import refresh_table as refresh

    with running(settings, metrics, table) as step:
        inputs = (Path(planner.path), Path(clusters.path), Path(transitions.path))
        step.measures = refresh(*inputs, step.config.table, recent, Path(table.path))
