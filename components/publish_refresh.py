"""The release with its new table."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def publish_refresh(
    table: Input[Dataset],
    verdict: Input[Artifact],
    releases: str,
    release: str,
    promote: bool,
    settings: str,
    published: Output[Artifact],
    metrics: Output[Metrics],
):
    """Publishes the old release's other parts with the new table.

    Args:
        table: the new table.
        verdict: its measures and gates.
        releases: folder or URL of all releases.
        release: id of the old release.
        promote: whether it serves at once; else it is a canary.
        settings: nothing but the code's digest.
        published: a record that names the new release.
        metrics: the same.
    """
    import json
    import tempfile
    from pathlib import Path

    from components._step import running
    from newfound.refresh import publish_refreshed

    with running(settings, metrics, published) as step, tempfile.TemporaryDirectory() as cache:
        judged = json.loads(Path(verdict.path).read_text(encoding="utf-8"))
        given = (releases, release, Path(table.path), judged["measures"], judged["gates"], Path(cache))
        made = publish_refreshed(*given, promote=promote)
        step.measures = {"release": made.id, "planner": made.planner_name or ""}
        Path(published.path).write_text(json.dumps(step.measures), encoding="utf-8")
