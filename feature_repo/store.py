"""The feature store's one home: open, apply, materialise, push, read by point in time, erase.

Serving, monitoring and the pipelines' components call Feast through here and in process: its command line would pay for
the imports again on every call. `.feastignore` keeps Feast from importing this file as definitions. Importing this
module does not import Feast.

`NEWFOUND_FEATURES` names the folder or URL that holds the source files. A platform sets it for the whole container, to
the one place that everybody reads; where nobody did, a run's own folder takes its place. `FEAST_FS_YAML_FILE_PATH`
chooses the YAML, as Feast itself reads it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from newfound.errors import ConfigError
from newfound.schema import ENGAGEMENTS, ITEM_IDS, POSITIVES, TIMES, USER, USER_HISTORY, USER_INTERESTS

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore

FOLDER_VARIABLE: Final = "NEWFOUND_FEATURES"
YAML_VARIABLE: Final = "FEAST_FS_YAML_FILE_PATH"
REPOSITORY: Final = Path(__file__).parent
VIEWS: Final = (USER_HISTORY, USER_INTERESTS)
# Materialised from and to: ordinal time starts at the epoch, and loaders refuse what lies later.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def open_store(sources: Path | None = None, repository: Path = REPOSITORY) -> FeatureStore:
    """The feature store; which one the environment says, the local one by default.

    Args:
        sources: where the source files are, unless the environment names another place.
        repository: Feast's folder.
    """
    if sources is not None:
        os.environ.setdefault(FOLDER_VARIABLE, str(sources))
    _import_feast()
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repository))


class OnlineReader:
    """Reads rows of the online store, without the registry.

    Feast's registry holds code as well, which runs where a view is read from it: whoever may write the registry would
    run code in every reader. Here the views are those of `feature_repo.definitions`.

    Args:
        repository: Feast's folder; the environment says which store, the local one by default.
    """

    def __init__(self, repository: Path = REPOSITORY) -> None:
        _import_feast()
        from feast.infra.provider import get_provider
        from feast.repo_config import load_repo_config
        from feast.utils import get_default_yaml_file_path

        definitions = importlib.import_module(f"{REPOSITORY.name}.definitions")
        self._views = {view.name: view for view in (definitions.user_history, definitions.user_interests)}
        self._config = load_repo_config(repository, get_default_yaml_file_path(repository))
        self._provider = get_provider(self._config)
        self.is_async = bool(self._provider.async_supported.online.read)

    def read(self, view: str, features: Sequence[str], user_id: str) -> Mapping[str, Any] | None:
        """A user's row, as Feast's values by name; None where there is none."""
        # A fresh list each time: Feast's Redis store appends to it.
        rows = self._provider.online_read(self._config, self._views[view], [entity_key(user_id)], list(features))
        return rows[0][1]

    async def read_async(
        self, view: str, features: Sequence[str], user_ids: Sequence[str]
    ) -> list[Mapping[str, Any] | None]:
        """The same for several users in one go, where the store `is_async`."""
        read, keys = self._provider.online_read_async, [entity_key(user_id) for user_id in user_ids]
        rows = await read(self._config, self._views[view], keys, list(features))
        return [row for _, row in rows]


@contextlib.contextmanager
def isolated_store(sources: Path) -> Iterator[FeatureStore]:
    """A store of a run's own source files alone, for what is learned: every run writes to a platform's one.

    Args:
        sources: where the source files are; nothing is written there.
    """
    with tempfile.TemporaryDirectory(prefix="newfound-") as place:
        for file in sources.glob("*.parquet"):
            (Path(place) / file.name).symlink_to(file.absolute())
        before = dict(os.environ)
        os.environ |= {FOLDER_VARIABLE: place, YAML_VARIABLE: str(REPOSITORY / "feature_store.yaml")}
        try:
            store = open_store()
            apply(store)
            yield store
        finally:
            os.environ.clear()
            os.environ.update(before)


def source_of(view: str) -> str:
    """File or URL of a view's rows."""
    return f"{os.environ[FOLDER_VARIABLE].rstrip('/')}/{view}.parquet"


def upload(rows: Path, view: str) -> None:
    """Puts a view's rows where Feast reads them, where that is another place than where they were written."""
    from newfound.files import put_file

    target = source_of(view)
    if target != str(rows):
        put_file(rows, target)


def apply(store: FeatureStore) -> None:
    """Registers what `feature_repo` defines."""
    from feast.repo_operations import parse_repo

    module = f"{REPOSITORY.name}.definitions"
    if module in sys.modules:  # its sources name the folder of an earlier store
        importlib.reload(sys.modules[module])
    with contextlib.chdir(REPOSITORY.parent):
        repo = parse_repo(REPOSITORY)
    objects = (repo.projects, repo.entities, repo.data_sources, repo.feature_views, repo.feature_services)
    store.apply([thing for kind in objects for thing in kind])


def materialise(store: FeatureStore, views: Sequence[str] | None = None) -> None:
    """Brings the newest row of every user into the online store.

    Args:
        store: the feature store.
        views: by name; all whose rows were written already where None.
    """
    import fsspec

    _name_frames_by_lot()
    for view in views if views is not None else VIEWS:
        filesystem, path = fsspec.core.url_to_fs(source_of(view))
        if views is not None or filesystem.exists(path):
            store.materialize(_FIRST, _LAST, feature_views=[view])


def push(store: FeatureStore, view: str, rows: Mapping[str, Sequence[Any]]) -> None:
    """Writes rows to the online store. Redis keeps what it has where a row's stamp is not later than the stored one.

    Args:
        store: the feature store.
        view: by name.
        rows: columns by name, those of the view's source.
    """
    import pandas as pd

    store.write_to_online_store(view, pd.DataFrame(dict(rows)))


def fetch_as_of(store: FeatureStore, users: pd.DataFrame) -> pd.DataFrame:
    """Histories by point in time, one row a user; null arrays where there was no history yet.

    Args:
        store: the feature store.
        users: columns user_id and event_timestamp, the moment as of which each is asked for.
    """
    features = [f"{USER_HISTORY}:{name}" for name in (ITEM_IDS, TIMES, ENGAGEMENTS, POSITIVES)]
    _name_frames_by_lot()
    rows = store.get_historical_features(entity_df=users, features=features).to_df()
    # Feast leaves users out whose rows are all later, and gives null arrays to users that it has no row of at all.
    return users[[USER]].merge(rows, on=USER, how="left")


def _name_frames_by_lot() -> None:
    """Spares Dask reading whole frames for their names.

    It names a frame by its content, for which it pickles arrays in its cells one by one: minutes for 50,000 users. No
    frame of Feast's is used twice, so any name will do.
    """
    import pandas as pd
    from dask.tokenize import normalize_token

    normalize_token.register(pd.DataFrame, lambda frame: uuid.uuid4().hex)


def erase(store: FeatureStore, user_ids: Iterable[str]) -> int:
    """Deletes users' online rows; Feast has no call for it that every store answers, so each has its own way.

    Returns:
        How many rows there were (Redis keeps all views of a user in one).

    Raises:
        ConfigError: the online store is neither sqlite nor Redis.
    """
    config, online = store.config, _online(store)
    if config.online_store.type == "redis":
        from feast.infra.online_stores.helpers import _redis_key

        client, version = online._get_client(config.online_store), config.entity_key_serialization_version
        keys = (_redis_key(config.project, entity_key(user), version) for user in user_ids)
        return sum(int(client.delete(key)) for key in keys)
    connection = online._get_conn(config)
    removed = 0
    with connection:
        for user in user_ids:
            key = _serialized(store, user)
            for view in VIEWS:
                done = connection.execute(f'DELETE FROM "{store.project}_{view}" WHERE entity_key = ?', (key,))
                removed += done.rowcount > 0  # a row a feature
    connection.execute("VACUUM")
    return removed


def stored_users(store: FeatureStore) -> Iterator[str]:
    """The users that the online store has rows of.

    Raises:
        ConfigError: the online store is neither sqlite nor Redis.
    """
    from feast.infra.key_encoding_utils import deserialize_entity_key

    config, online = store.config, _online(store)
    if config.online_store.type == "redis":
        suffix = config.project.encode()
        client = online._get_client(config.online_store)
        keys = {key.removesuffix(suffix) for key in client.scan_iter(match=b"*" + suffix, count=1000)}
    else:
        connection = online._get_conn(config)
        tables = [f'"{store.project}_{view}"' for view in VIEWS]
        keys = {row[0] for table in tables for row in connection.execute(f"SELECT DISTINCT entity_key FROM {table}")}
    for key in keys:
        with contextlib.suppress(ValueError):  # somebody else's key in the same Redis
            found = deserialize_entity_key(key, config.entity_key_serialization_version)
            if list(found.join_keys) == [USER]:
                yield found.entity_values[0].string_val


def _online(store: FeatureStore) -> Any:
    kind = store.config.online_store.type
    if kind not in ("redis", "sqlite"):
        raise ConfigError(
            f"online store {kind!r}: cannot be erased from here; expected sqlite or redis, "
            "delete the user's rows there by hand"
        )
    return store._get_provider().online_store


def _serialized(store: FeatureStore, user_id: str) -> bytes:
    from feast.infra.key_encoding_utils import serialize_entity_key

    return bytes(serialize_entity_key(entity_key(user_id), store.config.entity_key_serialization_version))


def entity_key(user_id: str) -> Any:
    """The user's key as the online stores take it."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[USER], entity_values=[Value(string_val=user_id)])


def _import_feast() -> None:
    """Imports Feast without torch, which it takes where it finds it, for a type that is not used here, and without
    typeguard's rewriting of its classes, which takes half of the import's time to check what mypy has checked."""
    if "feast" in sys.modules:
        return _refuse_code()
    typeguard = importlib.import_module("typeguard")
    checked, without_torch = typeguard.typechecked, "torch" not in sys.modules
    if without_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    typeguard.typechecked = _unchecked  # type: ignore[attr-defined]
    try:
        importlib.import_module("feast")
    finally:
        typeguard.typechecked = checked  # type: ignore[attr-defined]
        if without_torch:
            del sys.modules["torch"]
    _refuse_code()


def _refuse_code() -> None:
    """Lets Feast run no code out of a registry: transformations, of which there are none here, as source or pickle."""
    import dill
    from feast.transformation import udf_rehydrate

    udf_rehydrate.rehydrate_udf_from_source = _refuse
    dill.loads = dill.load = _refuse


def _refuse(*_: Any, **__: Any) -> Any:
    raise ConfigError(
        "Feast's registry holds a transformation; expected feature views without code, as feature_repo defines them"
    )


def _unchecked(target: Any = None, **_: Any) -> Any:
    return (lambda later: later) if target is None else target
