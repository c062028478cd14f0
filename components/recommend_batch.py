"""Slates for everybody."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def recommend_batch(
    histories: Input[Dataset],
    settings: str,
    batch: str,
    shard: int,
    releases: str,
    release: str,
    out: str,
    slates: Output[Dataset],
    metrics: Output[Metrics],
):
    """Recommends to everyone who has a history, or to those of one shard.

    Args:
        histories: as of the end.
        settings: nothing but what the cache depends on.
        batch: BatchConfig as JSON; its shard is overridden.
        shard: which of its shards.
        releases: folder or URL of all releases.
        release: id; empty means the one that serves when the step runs.
        out: folder or URL that gets a copy as `<release>/part-<shard>.parquet`; empty for none.
        slates: slates.parquet.
        metrics: counts.
    """
    from pathlib import Path

    from components._batch import write
    from components._step import running

    with running(settings, metrics, slates) as step:
        step.measures = write(Path(histories.path), batch, shard, releases, release, out, Path(slates.path))
