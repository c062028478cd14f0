"""The gates between a refreshed table and its release."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def judge_refresh(
    before: Input[Dataset],
    after: Input[Dataset],
    dataset: Input[Dataset],
    clusters: Input[Artifact],
    settings: str,
    verdict: Output[Artifact],
    changes: Output[HTML],
    metrics: Output[Metrics],
):
    """Stops the pipeline by name where the new table is no better, or broken.

    Args:
        before: the table that serves.
        after: the new one, built from what came before the cut.
        dataset: the data set.
        clusters: of both.
        settings: transitions, and refresh: the gates' bounds.
        verdict: measures and gates as JSON.
        changes: what the new table answers otherwise, as a page; written before the gates are held against it.
        metrics: the measures.
    """
    import json
    from pathlib import Path

    from components._step import running
    from newfound.evaluation.report.table_changes import write_changes
    from newfound.refresh import judge

    with running(settings, metrics, verdict, changes) as step:
        write_changes(Path(before.path), Path(after.path), Path(clusters.path), Path(changes.path))
        paths = (Path(one.path) for one in (before, after, dataset, clusters))
        found, gates = judge(*paths, step.config.transitions.context, step.config.refresh)
        Path(verdict.path).write_text(json.dumps({"measures": found, "gates": gates}, indent=2), encoding="utf-8")
        step.measures = found
