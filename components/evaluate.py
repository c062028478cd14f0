"""The proof."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    planner: Input[Model],
    table: Input[Dataset],
    tuned: Input[Artifact],
    ranker: Input[Model],
    decision: Input[Artifact],
    experiment: Input[Artifact],
    settings: str,
    evaluation: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Measures planner, table, ranker and the served slate on what came after the cut, beside chance and the rivals.

    Args:
        dataset: the data set, whose events after the cut are the labels.
        histories: the past.
        clusters: interest clusters.
        transitions: novel transitions.
        planner: the fine-tuned planner.
        table: the transition table.
        tuned: the search for the ranker's parameters.
        ranker: the ranker.
        decision: what planner and ranker weigh.
        experiment: the small experiment, for the report and for the release's flags.
        settings: the whole configuration.
        evaluation: metrics.json, rivals.json, report.html, plots.
        report: the report again, as Kubeflow shows it.
        metrics: all measures.
    """
    import shutil
    from pathlib import Path

    from components._step import running
    from newfound.evaluation import evaluate as measure

    with running(settings, metrics, evaluation, report) as step:
        inputs = (dataset, histories, clusters, transitions, planner, table, ranker, decision, experiment, tuned)
        step.measures = measure(*(Path(one.path) for one in inputs), step.config, Path(evaluation.path))
        shutil.copyfile(Path(evaluation.path) / "report.html", report.path)
