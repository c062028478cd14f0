"""The language policy."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def finetune_planner(
    transitions: Input[Dataset],
    clusters: Input[Artifact],
    settings: str,
    planner: Output[Model],
    metrics: Output[Metrics],
    init: Input[Model] = None,
):
    """Fine-tunes the planner.

    Args:
        transitions: the balanced set.
        clusters: interest clusters.
        settings: planner, seed, threads.
        planner: a Hugging Face folder with prompt.json and training.json.
        metrics: curve's end, match rate.
        init: a planner to go on from.
    """
    from pathlib import Path

    from components._step import running
    from newfound.planner import finetune_planner as finetune

    with running(settings, metrics, planner) as step:
        start = Path(init.path) if init else None
        inputs = (Path(transitions.path), Path(clusters.path))
        step.measures = finetune(*inputs, step.config.planner, step.config.seed, Path(planner.path), start)
