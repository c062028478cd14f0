"""A shard of the transition table, where many pods build it."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def build_table_shard(
    planner: Input[Model],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    settings: str,
    shard: int,
    part: Output[Dataset],
    metrics: Output[Metrics],
):
    """Asks the planner for the contexts of one shard.

    Args:
        planner: the fine-tuned planner.
        clusters: interest clusters.
        transitions: for the frequency of contexts.
        settings: table, threads.
        shard: which of `table.shards`.
        part: log_probs.npy, asked.npy, shard.json; nothing where there is no language model to ask.
        metrics: counts and speed.
    """
    from pathlib import Path

    from components._step import running
    from newfound.table import build_shard

    with running(settings, metrics, part) as step:
        inputs = (Path(planner.path), Path(clusters.path), Path(transitions.path))
        step.measures = build_shard(*inputs, step.config.table, shard, Path(part.path))
