"""The transition table."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def build_table(
    planner: Input[Model],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    settings: str,
    table: Output[Dataset],
    metrics: Output[Metrics],
):
    """Asks the planner for every ordered context.

    Args:
        planner: the fine-tuned planner.
        clusters: interest clusters.
        transitions: for the frequency of contexts.
        settings: table, threads.
        table: contexts.npy, log_probs.npy, table.json.
        metrics: counts and speed.
    """
    from pathlib import Path

    from components._step import running
    from newfound.table import build_table as build

    with running(settings, metrics, table) as step:
        inputs = (Path(planner.path), Path(clusters.path), Path(transitions.path))
        step.measures = build(*inputs, step.config.table, Path(table.path))
