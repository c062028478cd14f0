"""The feature store: written, applied, materialised."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def apply_features(dataset: Input[Dataset], settings: str, features: Output[Artifact], metrics: Output[Metrics]):
    """Writes Feast's source, applies the feature repository and fills the online store as of the end.

    Args:
        dataset: the data set.
        settings: features.
        features: the feature store's folder.
        metrics: rows written.
    """
    from pathlib import Path

    from components._features import HISTORY, apply, materialise, open_store, upload
    from components._step import running
    from newfound.histories import write_rows

    with running(settings, metrics, features) as step:
        source = Path(features.path) / f"{HISTORY}.parquet"
        store = open_store(source.parent)
        step.measures = write_rows(Path(dataset.path), step.config.features.history_length, source)
        upload(source, HISTORY)
        apply(store)
        materialise(store, HISTORY)
