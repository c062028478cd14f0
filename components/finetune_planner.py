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
    job: str = "",
):
    """Fine-tunes the planner, here or by a TrainJob.

    Args:
        transitions: the balanced set.
        clusters: interest clusters.
        settings: planner, seed, threads.
        planner: a Hugging Face folder with prompt.json and training.json.
        metrics: the chosen fit, match rate.
        init: a planner to go on from.
        job: image, variables, secrets and the TrainJob's size, as JSON; empty: no TrainJob.
    """
    from pathlib import Path

    from components._step import running
    from components._train_job import run_train_job

    with running(settings, metrics, planner) as step:
        if job:
            given = {"transitions": transitions, "clusters": clusters, "init": init}
            step.measures = run_train_job("finetune_planner", given, {"planner": planner}, settings, job)
            return
        from newfound.planner.training.finetune import finetune_planner as finetune

        inputs, start = (Path(transitions.path), Path(clusters.path)), Path(init.path) if init else None
        config = step.config
        step.measures = finetune(*inputs, config.planner, config.seed, Path(planner.path), start, config.threads)
