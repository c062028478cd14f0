"""The gates between a fit and its release."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def check_gates(evaluation: Input[Artifact], settings: str, gates: Output[Artifact], metrics: Output[Metrics]):
    """Stops the pipeline by name where a gate does not hold.

    Args:
        evaluation: metrics.json.
        settings: evaluation, for the bounds.
        gates: gates.json: value, bound and outcome of every gate.
        metrics: the same numbers.
    """
    import json
    from pathlib import Path

    from components._step import running
    from newfound.gates import release_checks, require

    with running(settings, metrics, gates) as step:
        measures = json.loads((Path(evaluation.path) / "metrics.json").read_text(encoding="utf-8"))
        held = require(release_checks(measures, step.config.evaluation))
        Path(gates.path).write_text(json.dumps(held, indent=2), encoding="utf-8")
        step.measures = {f"{name}.{key}": value for name, gate in held.items() for key, value in gate.items()}
