"""Novel transitions."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def mine_transitions(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    settings: str,
    transitions: Output[Dataset],
    metrics: Output[Metrics],
):
    """Finds where people went on to an interest that they never had, and balances the examples.

    Args:
        dataset: the data set, for its groups of users.
        histories: the past.
        clusters: interest clusters.
        settings: transitions, seed.
        transitions: transitions.parquet, balanced.parquet, held_out.parquet, transitions.json.
        metrics: counts.
    """
    from pathlib import Path

    from components._step import running
    from newfound.transitions.mine import mine_transitions as mine

    with running(settings, metrics, transitions) as step:
        inputs = (Path(histories.path), Path(dataset.path), Path(clusters.path))
        step.measures = mine(*inputs, step.config.transitions, step.config.seed, Path(transitions.path))
