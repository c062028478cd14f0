"""Raw data in, validated tables out."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def load_interactions(settings: str, dataset: Output[Dataset], metrics: Output[Metrics]):
    """Loads interactions and items, checks them, and splits users and time.

    Args:
        settings: data, split, seed.
        dataset: interactions.parquet, items.parquet, users.parquet, dataset.json.
        metrics: counts.
    """
    from pathlib import Path

    from components._step import running
    from newfound.datasets import load_interactions as load

    with running(settings, metrics, dataset) as step:
        config = step.config
        step.measures = load(config.data, config.split, config.seed, Path(dataset.path))
