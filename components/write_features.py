"""People's past as rows of the feature store."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def write_features(dataset: Input[Dataset], settings: str, features: Output[Artifact], metrics: Output[Metrics]):
    """Writes everybody's history, as of the cut and as of the end, as Feast reads it.

    Args:
        dataset: the data set.
        settings: features.
        features: a feature store's folder with its source files.
        metrics: rows written.
    """
    from pathlib import Path

    from components._step import running
    from newfound.features.user_history import write_user_history
    from newfound.schema import USER_HISTORY

    with running(settings, metrics, features) as step:
        source = Path(features.path) / f"{USER_HISTORY}.parquet"
        step.measures = write_user_history(Path(dataset.path), step.config.features.history_length, source)
