"""A training that follows an earlier release: its clusters live on under their ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from components.build_clusters import build_clusters
from newfound.clusters import Clusters
from newfound.config import DataConfig, SplitConfig
from newfound.datasets import load_interactions
from newfound.errors import ReleaseError
from newfound.release.assemble import earlier_clusters
from newfound.release.store import publish
from tests.release.gates import HELD
from tests.serving.synthetic import World, publish_world


def test_the_current_release_or_the_one_named_or_none(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    assert earlier_clusters(root, "current", tmp_path) is None, "before the first release there is nothing to follow"
    first = publish_world(World(clusters=6, items=8), tmp_path / "releases", tmp_path / "world")
    folder = earlier_clusters(root, "current", tmp_path)
    assert folder is not None and folder == earlier_clusters(root, first.id, tmp_path)
    assert Clusters.load(folder).interface
    assert earlier_clusters(root, "", tmp_path) is None
    with pytest.raises(ReleaseError):
        earlier_clusters(root, "20200101T000000-000000000000", tmp_path)


def test_the_step_keeps_the_ids_of_the_release_and_says_what_changed(
    tmp_path: Path, fetch: Callable[[Path, Path], Path]
) -> None:
    rows = [
        (f"u{user:03d}", f"i{(user // 8 + step // 6) % 6}.{(user + step) % 8}", 1_700_000_000 + 100 * step + user, 1.0)
        for user in range(96)
        for step in range(12)
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "engagement"]).to_parquet(tmp_path / "e.parquet")
    data = DataConfig(loader="files", interactions=str(tmp_path / "e.parquet"), min_user_events=1)
    load_interactions(data, SplitConfig(cut="global", future=0.1), 7, tmp_path / "dataset")
    past = fetch(tmp_path / "dataset", tmp_path / "histories.parquet")
    logged: dict[str, float] = {}

    def run(name: str, seed: int, previous: str) -> Clusters:
        config = {"clusters": {"interface_size": 6, "coarse_sizes": [2], "leaf_items": 4}, "seed": seed, "threads": 1}
        metrics = SimpleNamespace(path=str(tmp_path / f"{name}.json"), name="metrics", log_metric=logged.__setitem__)
        build_clusters.python_func(
            SimpleNamespace(path=str(tmp_path / "dataset")),
            SimpleNamespace(path=str(past)),
            str(tmp_path / "releases"),
            previous,
            json.dumps({"config": config}),
            SimpleNamespace(path=str(tmp_path / name), name="clusters", metadata={}),
            metrics,
        )
        return Clusters.load(tmp_path / name)

    old = run("old", 7, "")
    assert old.info["changes"] is None and "moved_items" not in logged
    publish({"clusters": tmp_path / "old"}, str(tmp_path / "releases"), lineage={}, measures={}, fits={}, gates=HELD)
    new = run("new", 8, "current")
    changes = new.info["changes"]
    assert changes["shared_items"] == 48 and logged["moved_items"] == changes["moved_items"] < 0.2
    kept = set(new.interface) - set(changes["appeared"])
    assert kept == set(old.interface) - set(changes["vanished"]) and len(kept) >= 4
