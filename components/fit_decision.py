"""The one decision of planner and ranker."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def fit_decision(
    dataset: Input[Dataset],
    histories: Input[Dataset],
    clusters: Input[Artifact],
    transitions: Input[Dataset],
    table: Input[Dataset],
    ranker: Input[Model],
    settings: str,
    decision: Output[Artifact],
    metrics: Output[Metrics],
    measured: Input[Artifact] = None,
):
    """Fits what planner and ranker weigh, or keeps what was fitted and makes its terms anew.

    Args:
        dataset: the data set, whose events after the cut are the choices.
        histories: the past.
        clusters: interest clusters.
        transitions: novel transitions.
        table: the transition table.
        ranker: the ranker.
        settings: split, transitions, planner, policy, evaluation, seed, threads.
        decision: decision.json, items.safetensors, clusters.safetensors.
        metrics: coefficients, log-likelihood, moments.
        measured: an earlier decision, whose coefficients stay.
    """
    from pathlib import Path

    from components._step import running
    from newfound.evaluation.decision_fit import fit_decision as fit

    with running(settings, metrics, decision) as step:
        inputs = (Path(one.path) for one in (dataset, histories, clusters, transitions, table, ranker))
        kept = Path(measured.path) if measured else None
        step.measures = fit(*inputs, step.config, Path(decision.path), kept)
