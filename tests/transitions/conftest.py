"""Walks over lettered clusters, and what is mined from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import DataConfig, SplitConfig, TransitionsConfig
from newfound.datasets import load_interactions
from newfound.features.user_history import check_histories
from newfound.transitions.mine import mine_transitions

START = int(pd.Timestamp("2024-01-01", tz="UTC").timestamp() * 1000)
Walk = Sequence[tuple[str, float]]  # item and engagement; positive from .5


def write_clusters(out: Path, items_of: Mapping[str, Sequence[str]]) -> Path:
    """Interface clusters under one root, each with a single leaf."""
    total = sum(len(items) for items in items_of.values())
    tree, paths = [("root", None, 1, "everything", total, 1.0)], []
    for cluster, items in items_of.items():
        tree.append((cluster, "root", 2, f"about {cluster}", len(items), 0.5))
        tree.append((f"{cluster} leaf", cluster, 3, f"all of {cluster}", len(items), 0.5))
        paths += [(item, ["root", cluster, f"{cluster} leaf"]) for item in sorted(items)]
    Clusters(
        pa.table(
            [pa.array(column, field.type) for column, field in zip(zip(*tree, strict=True), schema.TREE, strict=True)],
            schema=schema.TREE,
        ),
        pa.table(
            [
                pa.array(column, field.type)
                for column, field in zip(zip(*paths, strict=True), schema.ITEM_PATHS, strict=True)
            ],
            schema=schema.ITEM_PATHS,
        ),
        {"interface_level": 2},
        {"nodes": np.zeros((len(tree), 2), np.float32), "items": np.zeros((total, 2), np.float32)},
    ).save(out)
    return out


def write_histories(out: Path, walks: Mapping[str, Walk]) -> Path:
    """One event a minute."""
    rows = [
        {
            "user_id": user,
            "item_ids": [item for item, _ in walk],
            "times": [START + 60_000 * step for step in range(len(walk))],
            "engagements": [engagement for _, engagement in walk],
            "positives": [engagement >= 0.5 for _, engagement in walk],
        }
        for user, walk in walks.items()
    ]
    check_histories(pd.DataFrame(rows, columns=["user_id", *("item_ids", "times", "engagements", "positives")]), out)
    return out


def write_groups(folder: Path, groups: Mapping[str, str], items: Sequence[str]) -> Path:
    """A data set whose users are in the groups that are wanted."""
    events = pd.DataFrame([(user, item, at) for user in groups for at, item in enumerate(items)])
    events.columns = ["user_id", "item_id", "timestamp"]
    folder.mkdir(parents=True, exist_ok=True)
    events.to_parquet(folder / "events.parquet")
    config = DataConfig(loader="files", interactions=str(folder / "events.parquet"), min_user_events=1)
    load_interactions(config, SplitConfig(), 1, folder / "dataset")
    users = pq.read_table(folder / "dataset" / "users.parquet")
    chosen = pa.array([groups[user] for user in users["user_id"].to_pylist()])
    at = users.schema.get_field_index("group")
    pq.write_table(users.set_column(at, schema.USERS.field("group"), chosen), folder / "dataset" / "users.parquet")
    return folder / "dataset"


LETTERS = {letter: [f"{letter}{number}" for number in range(3)] for letter in "ABCDE"}


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clusters A to E of three items each: A0, A1, A2, ..."""
    return write_clusters(tmp_path_factory.mktemp("clusters") / "clusters", LETTERS)


@pytest.fixture(scope="session")
def mined(
    letters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, dict[str, float | int | str]]]:
    """Mines eight walks: six people to learn from, one to validate and one to test on."""
    folder = tmp_path_factory.mktemp("mined")
    walks: dict[str, Walk] = {
        "t1": [("A0", 1), ("B0", 1), ("C0", 1), ("D0", 1)],
        "t2": [("A0", 1), ("B0", 1), ("C1", 1), ("E0", 0)],
        "t3": [("A0", 1), ("B0", 1), ("D0", 1), ("C0", 1)],
        "t4": [("B0", 1), ("A0", 1), ("C0", 1), ("D0", 1)],
        "t5": [("A1", 1), ("B1", 1), ("C0", 0), ("D0", 1)],
        "t6": [("C0", 1)],
        "v1": [("A0", 1), ("B0", 1), ("E0", 1), ("D0", 1)],
        "x1": [("D0", 1), ("E0", 1), ("C0", 1)],
    }
    groups = {user: {"t": "train", "v": "validation", "x": "test"}[user[0]] for user in walks}
    histories = write_histories(folder / "histories.parquet", walks)
    dataset = write_groups(folder / "data", groups, ["A0", "B0"])

    def mine(seed: int = 1, **config: object) -> tuple[Path, dict[str, float | int | str]]:
        out = folder / f"out-{seed}-{'-'.join(f'{k}{v}' for k, v in config.items())}"
        return out, mine_transitions(histories, dataset, letters, TransitionsConfig(**config), seed, out)

    return mine
