"""A release that passed its gates, as a canary."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def deploy_release(
    published: Input[Artifact],
    gates: Input[Artifact],
    settings: str,
    canary: str,
    deployed: Output[Artifact],
    metrics: Output[Metrics],
):
    """Serves the release beside the one that serves, and gives it a share of the gateway's traffic.

    Args:
        published: the record that names the release and its planner.
        gates: gates.json, or a refresh's verdict, which holds them.
        settings: nothing that is read.
        canary: namespace, share and patience, as JSON.
        deployed: the InferenceServices and weights as they were applied.
        metrics: the share, and how long the pods took.
    """
    import json
    from pathlib import Path

    from components._canary import deploy
    from components._step import running

    with running(settings, metrics, deployed) as step:
        record = json.loads(Path(published.path).read_text(encoding="utf-8"))
        judged = json.loads(Path(gates.path).read_text(encoding="utf-8"))
        applied, step.measures = deploy(record, judged.get("gates", judged), json.loads(canary))
        Path(deployed.path).write_text(json.dumps(applied, indent=2), encoding="utf-8")
