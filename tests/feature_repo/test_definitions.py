"""The feature repository through Feast itself: point in time, online against offline, the two stores."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.store import apply, fetch_as_of, materialise, open_store, upload
from newfound import schema
from newfound.config import TrainingConfig
from newfound.datasets import Dataset
from newfound.features.histories import ARRAYS, Histories
from newfound.features.user_history import check_histories, entity_rows, write_user_history

feast = pytest.importorskip("feast")

REPO = Path(__file__).parents[2] / "feature_repo"


def _fill(folder: Path, dataset: Path) -> Any:
    """What write_features and publish_interests do, in this process."""
    folder.mkdir()
    write_user_history(dataset, 1000, folder / "user_history.parquet")
    store = open_store(folder)
    apply(store)
    materialise(store, [schema.USER_HISTORY])
    return store


@pytest.fixture(scope="module")
def store(movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A feature store that holds the slice of MovieLens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FEAST_FS_YAML_FILE_PATH", raising=False)
        folder = tmp_path_factory.mktemp("store") / "features"
        patch.setenv("NEWFOUND_FEATURES", str(folder))
        yield _fill(folder, movielens)


def _events(dataset: Path, past: bool) -> dict[str, list[tuple[Any, ...]]]:
    """Each user's events straight from the tables: all of them, or those before the cut."""
    data = Dataset(dataset)
    events = data.frame("interactions").merge(data.frame("users"), on=schema.USER)
    if past:
        events = events[events[schema.TIME] < events[schema.CUT]]
    # The milliseconds of Feast's array, whatever unit pandas holds.
    events["ms"] = events[schema.TIME].map(lambda at: int(at.timestamp() * 1000))
    columns = [schema.ITEM, "ms", schema.ENGAGEMENT, schema.POSITIVE]
    ordered = events.sort_values([schema.USER, schema.POSITION])
    return {
        str(user): list(rows[columns].itertuples(index=False, name=None)) for user, rows in ordered.groupby(schema.USER)
    }


def _rows(table: pd.DataFrame) -> dict[str, list[tuple[Any, ...]]]:
    return {
        row[schema.USER]: list(zip(*(row[name] for name in ARRAYS), strict=True))
        for row in table.to_dict("records")
        if isinstance(row[schema.TIMES], np.ndarray | list)
    }


def test_histories_as_of_the_cut_hold_the_whole_past_and_nothing_after_it(
    store: Any, movielens: Path, tmp_path: Path
) -> None:
    found = fetch_as_of(store, entity_rows(movielens, "cut"))

    measures = check_histories(found, tmp_path / "histories", cuts=movielens)
    users = Dataset(movielens).frame("users").set_index(schema.USER)
    histories = Histories.load(tmp_path / "histories")
    assert measures["users"] == len(histories) > 100
    for user, history in histories:
        assert history.times[-1] < users.loc[user, schema.CUT].timestamp() * 1000
    assert _rows(found) == _events(movielens, past=True)


def test_an_event_at_the_cut_belongs_to_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two users, cut at second 30: what happens at that very moment must not come back, nor a user who begins then.
    def at(second: int) -> pd.Timestamp:
        return pd.Timestamp(second, unit="s", tz="UTC")

    def row(user: str, items: list[str], seconds: list[int]) -> dict[str, Any]:
        arrays = ([1.0] * len(items), [True] * len(items))
        milliseconds = [1000 * second for second in seconds]
        return dict(zip(schema.HISTORIES.names, (user, at(seconds[-1]), items, milliseconds, *arrays), strict=True))

    rows = [row("a", ["x"], [10]), row("a", ["x", "y"], [10, 30]), row("b", ["z"], [30])]
    folder = tmp_path / "features"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.HISTORIES), folder / "user_history.parquet")
    monkeypatch.setenv("NEWFOUND_FEATURES", str(folder))
    fresh = open_store(folder)
    apply(fresh)
    cut = pd.DataFrame({schema.USER: ["a", "b"], schema.EVENT_TIME: [at(30) - pd.Timedelta(1, "us")] * 2})

    found = fetch_as_of(fresh, cut)

    assert check_histories(found, tmp_path / "histories") == {
        "users": 1,
        "users_without_past": 1,
        "events": 1,
        "positives": 1,
    }
    assert Histories.load(tmp_path / "histories").of("a").item_ids == ["x"]


def test_histories_are_not_read_to_name_the_frames_that_hold_them(store: Any, movielens: Path) -> None:
    from dask.tokenize import tokenize

    pickled = []

    class Cell:
        def __reduce__(self) -> tuple[type, tuple[()]]:
            pickled.append(self)
            return Cell, ()

    fetch_as_of(store, entity_rows(movielens, "cut").head(2))
    tokenize(pd.DataFrame({"cell": [Cell()]}))

    assert not pickled


def test_online_and_offline_agree_as_of_the_end(store: Any, movielens: Path) -> None:
    offline = _rows(fetch_as_of(store, entity_rows(movielens, "end")))
    users = sorted(offline)
    answer = store.get_online_features(
        features=store.get_feature_service("explorer"), entity_rows=[{schema.USER: user} for user in users]
    ).to_dict()
    online = {user: list(zip(*(answer[name][at] for name in ARRAYS), strict=True)) for at, user in enumerate(users)}

    assert offline == _events(movielens, past=False)
    assert online == offline


def test_the_service_serves_history_and_interests_in_one_read(store: Any, movielens: Path, tmp_path: Path) -> None:
    from newfound.clusters import Clusters

    data = Dataset(movielens).frame("interactions")
    # Two leaves by the parity of the id; one consumed item has no cluster yet.
    items = sorted(data[schema.ITEM].unique(), key=lambda item: (int(item) % 2, item))[1:]
    nodes = [{"node": f"n{rest}", "parent": None, "level": 1, "description": f"rest {rest}"} for rest in (0, 1)]
    sizes = [sum(int(item) % 2 == rest for item in items) for rest in (0, 1)]
    tree = [{**node, "size": size, "traffic": 0.5} for node, size in zip(nodes, sizes, strict=True)]
    paths = [{schema.ITEM: item, schema.PATH: [f"n{int(item) % 2}"]} for item in items]
    clusters = Clusters(
        pa.Table.from_pylist(tree, schema=schema.TREE),
        pa.Table.from_pylist(paths, schema=schema.ITEM_PATHS),
        {"interface_level": 1},
        {},
    )
    clusters.save(tmp_path / "clusters")
    from newfound.features.user_interests import write_interests

    write_interests(movielens, tmp_path / "clusters" / "items.parquet", clusters.digest, tmp_path / "interests")
    upload(tmp_path / "interests", schema.USER_INTERESTS)
    materialise(store, [schema.USER_INTERESTS])

    user = str(data[schema.USER].iloc[0])
    seen = {f"n{int(item) % 2}" for item in data[data[schema.USER] == user][schema.ITEM] if item in set(items)}
    answer = store.get_online_features(
        features=store.get_feature_service("explorer"), entity_rows=[{schema.USER: user}, {schema.USER: "nobody"}]
    ).to_dict()
    assert answer[schema.SEEN_LEAVES] == [sorted(seen), None]
    assert answer[schema.CLUSTERS_DIGEST] == [clusters.digest, None]
    assert answer[schema.ITEM_IDS][1] is None
    assert answer[schema.ITEM_IDS][0][0] in set(data[data[schema.USER] == user][schema.ITEM])


def test_the_environment_chooses_the_platforms_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(REPO / "feature_store.production.yaml"))
    monkeypatch.setenv("NEWFOUND_FEATURES", "s3://bucket/features")
    monkeypatch.setenv("NEWFOUND_REDIS", "redis:6379,ssl=true")

    config = open_store(Path("unused")).config

    assert config.online_store.type == "redis"
    assert config.online_store.connection_string == "redis:6379,ssl=true"
    assert config.registry.path == "s3://bucket/features/registry.db"
    assert config.offline_store.type == "dask"


def test_a_store_that_lies_elsewhere_gets_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "rows").write_bytes(b"rows")
    monkeypatch.setenv("NEWFOUND_FEATURES", (tmp_path / "there").as_uri())

    upload(tmp_path / "rows", schema.USER_HISTORY)

    assert (tmp_path / "there" / "user_history.parquet").read_bytes() == b"rows"
    shutil.rmtree(tmp_path / "there")


def test_a_run_learns_from_its_own_rows_whatever_the_platforms_store_holds(
    movielens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached step's rows are not what another run, of other data, put into the store since."""
    from components.fetch_histories import fetch_histories
    from components.write_features import write_features

    def artifact(path: Path) -> Any:
        return SimpleNamespace(name=path.stem, path=str(path), metadata={}, log_metric=lambda name, value: None)

    dataset, features = artifact(movielens), artifact(tmp_path / "features")
    settings = json.dumps({"config": TrainingConfig().model_dump(mode="json", include={"features", "seed", "threads"})})
    write_features.python_func(dataset, settings, features, artifact(tmp_path / "metrics.json"))
    shared = tmp_path / "shared"
    shared.mkdir()
    rows = pq.read_table(Path(features.path) / "user_history.parquet").to_pylist()
    others = [{**row, schema.ITEM_IDS: ["stranger"] * len(row[schema.ITEM_IDS])} for row in rows]
    pq.write_table(pa.Table.from_pylist(others, schema=schema.HISTORIES), shared / "user_history.parquet")
    monkeypatch.setenv("NEWFOUND_FEATURES", str(shared))
    apply(open_store(shared))
    before = {file.name: file.read_bytes() for file in (*shared.iterdir(), *Path(features.path).iterdir())}

    histories = artifact(tmp_path / "histories")
    fetch_histories.python_func(dataset, features, settings, "end", histories, artifact(tmp_path / "metrics.json"))

    found = Histories.load(Path(histories.path))
    assert len(found) == Dataset(movielens).info["counts"]["users"]
    assert set(found.item_ids) <= set(Dataset(movielens).frame("interactions")[schema.ITEM])
    assert {file.name: file.read_bytes() for file in (*shared.iterdir(), *Path(features.path).iterdir())} == before
    assert os.environ["NEWFOUND_FEATURES"] == str(shared)
