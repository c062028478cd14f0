"""The search for the ranker's parameters."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def tune_ranker(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    settings: str,
    tuned: Output[Artifact],
    metrics: Output[Metrics],
):
    """Runs Optuna's trials.

    Args:
        dataset: the data set.
        histories: the past.
        clusters: interest clusters.
        settings: ranker, tuning, seed, threads.
        tuned: best.json, trials.json, the journal.
        metrics: the best trial's.
    """
    from pathlib import Path

    from components._step import running
    from newfound.ranker import tune_ranker as tune

    with running(settings, metrics, tuned) as step:
        inputs = (Path(dataset.path), Path(histories.path), Path(clusters.path))
        config = step.config
        step.measures = tune(*inputs, config.ranker, config.tuning, config.seed, config.threads, Path(tuned.path))
