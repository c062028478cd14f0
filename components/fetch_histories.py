"""The past, from the feature store: the only one that learning steps read."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components._image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def fetch_histories(
    dataset: Input[Dataset],
    features: Input[Artifact],
    settings: str,
    as_of: str,
    histories: Output[Dataset],
    metrics: Output[Metrics],
):
    """Fetches every user's history by point in time.

    Args:
        dataset: the data set.
        features: its source files; what others put into a platform's store is not looked at.
        settings: nothing but the code's digest.
        as_of: `cut`, each user's own, or `end`.
        histories: histories.parquet.
        metrics: counts.
    """
    from pathlib import Path

    from components._step import running
    from feature_repo.store import fetch_as_of, isolated_store
    from newfound.features.user_history import check_histories, entity_rows

    with running(settings, metrics, histories) as step:
        data = Path(dataset.path)
        with isolated_store(Path(features.path)) as store:
            found = fetch_as_of(store, entity_rows(data, as_of))
        step.measures = check_histories(found, Path(histories.path), cuts=data if as_of == "cut" else None)
