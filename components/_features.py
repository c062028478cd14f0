"""Feast, called in process: its command line would pay the imports again on every call.

`NEWFOUND_FEATURES` names the folder or URL that holds the source files. A platform sets it for the whole container, to
the one place that serving reads too; where nobody did, a run's own folder takes its place.
"""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from components._step import FEATURES_FOLDER
from newfound.features.user_history import ARRAYS
from newfound.features.user_history import VIEW as HISTORY
from newfound.files import put_file
from newfound.schema import USER

# Feast imports torch where it finds it, for features of tensors, which nobody uses here: seconds in every step.
if "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("feast")
    finally:
        del sys.modules["torch"]

from feast import FeatureStore
from feast.repo_operations import parse_repo

STORE_FILE = "FEAST_FS_YAML_FILE_PATH"
REPO = Path(__file__).parent.parent / "feature_repo"
INTERESTS = "user_interests"
# Materialised from and to: ordinal time starts at the epoch, and loaders refuse what lies later.
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def open_store(folder: Path) -> FeatureStore:
    """The feature store; which one `FEAST_FS_YAML_FILE_PATH` says, the local one by default.

    Args:
        folder: where the source files are, unless the environment names another place.
    """
    os.environ.setdefault(FEATURES_FOLDER, str(folder))
    return FeatureStore(repo_path=str(REPO))


@contextlib.contextmanager
def only(folder: Path) -> Iterator[FeatureStore]:
    """A store of a run's own source files alone, for what is learned: every run writes to a platform's one.

    Args:
        folder: where the source files are; nothing is written there.
    """
    with tempfile.TemporaryDirectory(prefix="newfound-") as place:
        for file in folder.glob("*.parquet"):
            (Path(place) / file.name).symlink_to(file.absolute())
        before = dict(os.environ)
        os.environ |= {FEATURES_FOLDER: place, STORE_FILE: str(REPO / "feature_store.yaml")}
        try:
            store = FeatureStore(repo_path=str(REPO))
            apply(store)
            yield store
        finally:
            os.environ.clear()
            os.environ.update(before)


def upload(source: Path, view: str) -> None:
    """Puts a view's rows where Feast reads them, where that is another place than where they were written."""
    target = f"{os.environ[FEATURES_FOLDER].rstrip('/')}/{view}.parquet"
    if target != str(source):
        put_file(source, target)


def apply(store: FeatureStore) -> None:
    """Registers what `feature_repo` defines."""
    module = f"{REPO.name}.definitions"
    if module in sys.modules:  # its sources name the folder of an earlier store
        importlib.reload(sys.modules[module])
    with contextlib.chdir(REPO.parent):
        repo = parse_repo(REPO)
    objects = (repo.projects, repo.entities, repo.data_sources, repo.feature_views, repo.feature_services)
    store.apply([thing for kind in objects for thing in kind])


def materialise(store: FeatureStore, view: str) -> None:
    """Brings a view's newest row of every user into the online store."""
    store.materialize(FIRST, LAST, feature_views=[view])


def fetch_as_of(store: FeatureStore, users: pd.DataFrame) -> pd.DataFrame:
    """Histories by point in time, one row a user; null arrays where there was no history yet.

    Args:
        store: the feature store.
        users: columns user_id and event_timestamp, the moment as of which each is asked for.
    """
    features = [f"{HISTORY}:{name}" for name in ARRAYS]
    found = store.get_historical_features(entity_df=users, features=features).to_df()
    # Feast leaves users out whose rows are all later, and gives null arrays to users that it has no row of at all.
    return users[[USER]].merge(found, on=USER, how="left")
