"""The item policy."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def train_ranker(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    tuned: Input[Artifact],
    settings: str,
    ranker: Output[Model],
    metrics: Output[Metrics],
    job: str = "",
    measured: Input[Model] = None,
):
    """Trains the ranker with the tuned parameters, here or by a TrainJob.

    Args:
        dataset: the data set.
        histories: the past.
        clusters: interest clusters.
        tuned: what the search found.
        settings: ranker, seed, threads.
        ranker: ranker.safetensors, ranker.json, training.json.
        metrics: validation measures.
        job: image, variables, secrets and the TrainJob's size, as JSON; empty: no TrainJob.
        measured: an earlier ranker, whose epoch and co-occurrence stay.
    """
    from pathlib import Path

    from components._step import running
    from components._train_job import run_train_job

    with running(settings, metrics, ranker) as step:
        if job:
            given = {"dataset": dataset, "histories": histories, "clusters": clusters, "tuned": tuned}
            given["measured"] = measured
            step.measures = run_train_job("train_ranker", given, {"ranker": ranker}, settings, job)
            return
        from newfound.ranker import train_ranker as train

        inputs = (Path(dataset.path), Path(histories.path), Path(clusters.path))
        config = step.config
        kept = Path(measured.path) if measured else None
        made = (Path(ranker.path), Path(tuned.path), kept)
        step.measures = train(*inputs, config.ranker, config.seed, config.threads, *made)
