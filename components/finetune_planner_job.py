"""The language policy, fine-tuned by a TrainJob."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def finetune_planner_job(
    transitions: Input[Dataset],
    clusters: Input[Artifact],
    settings: str,
    job: str,
    planner: Output[Model],
    metrics: Output[Metrics],
    init: Input[Model] = None,
):
    """Has Kubeflow Trainer fine-tune the planner.

    Args:
        transitions: the balanced set.
        clusters: interest clusters.
        settings: planner, seed, threads.
        job: image, variables, secrets and the TrainJob's size, as JSON.
        planner: a Hugging Face folder with prompt.json and training.json.
        metrics: curve's end, match rate.
        init: a planner to go on from.
    """
    from components._step import running
    from components._train_job import run_train_job

    with running(settings, metrics, planner) as step:
        inputs = {"transitions": transitions, "clusters": clusters, "init": init}
        step.measures = run_train_job("finetune_planner", inputs, planner, settings, job)
