"""The transition table of its shards."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def merge_table(
    parts: Input[list[Dataset]],
    planner: Input[Model],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    settings: str,
    table: Output[Dataset],
    metrics: Output[Metrics],
):
    """Checks that every shard is there and of one make, and joins them.

    Args:
        parts: the shards, in any order.
        planner: the fine-tuned planner.
        clusters: interest clusters.
        transitions: for the frequency of contexts.
        settings: table, threads.
        table: contexts.npy, log_probs.npy, table.json.
        metrics: counts and speed.
    """
    from pathlib import Path

    from components._step import running
    from newfound.table import merge

    with running(settings, metrics, table) as step:
        inputs = (Path(planner.path), Path(clusters.path), Path(transitions.path))
        step.measures = merge([Path(part.path) for part in parts], *inputs, step.config.table, Path(table.path))
