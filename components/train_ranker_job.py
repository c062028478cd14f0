"""The item policy, trained by a TrainJob."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def train_ranker_job(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    tuned: Input[Artifact],
    settings: str,
    job: str,
    ranker: Output[Model],
    metrics: Output[Metrics],
):
    """Has Kubeflow Trainer train the ranker with the tuned parameters.

    Args:
        dataset: the data set.
        histories: the past.
        clusters: interest clusters.
        tuned: what the search found.
        settings: ranker, seed, threads.
        job: image, variables, secrets and the TrainJob's size, as JSON.
        ranker: ranker.safetensors, ranker.json, training.json.
        metrics: validation measures.
    """
    from components._step import running
    from components._train_job import run_train_job

    with running(settings, metrics, ranker) as step:
        inputs = {"dataset": dataset, "histories": histories, "clusters": clusters, "tuned": tuned}
        step.measures = run_train_job("train_ranker", inputs, ranker, settings, job)
