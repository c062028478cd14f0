"""The small experiment on the claim."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def run_experiment(
    dataset: Input[Dataset],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    table: Input[Dataset],
    settings: str,
    experiment: Output[Artifact],
    metrics: Output[Metrics],
):
    """Lets the planner and pair frequency choose new interests for the run's own people, whose later days answer.

    Args:
        dataset: the data set, whose events after the cut answer.
        clusters: interest clusters.
        transitions: novel transitions, for pair frequency.
        table: the planner's table.
        settings: transitions, policy, evaluation, seed.
        experiment: experiment.json.
        metrics: the same numbers.
    """
    from pathlib import Path

    from components._step import running
    from newfound.simulation.small_experiment import run_experiment as run

    with running(settings, metrics, experiment) as step:
        inputs = (Path(one.path) for one in (dataset, clusters, transitions, table))
        config = step.config
        told = {"size": config.transitions.context, "policy": config.policy, "limits": config.evaluation}
        step.measures = run(*inputs, Path(experiment.path), **told, seed=config.seed)
