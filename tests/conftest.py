"""Data sets that many tests share, made once a session by the loader itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pandas as pd
import pytest

from newfound.config import DataConfig, PlannerConfig, SplitConfig
from newfound.datasets import load_interactions
from newfound.datasets.sources import open_source
from newfound.features.user_history import check_histories, entity_rows, write_user_history

# Files that take minutes, the longest first, so that no worker waits for the last of them alone.
LONGEST: Final = (
    "test_end_to_end.py",
    "serving/test_chaos.py",
    "serving/local/test_stack.py",
    "monitoring/test_next_request.py",
    "monitoring/test_prometheus.py",
    "release/test_object_store.py",
    "planner/training/test_trainer.py",
    "serving/test_examples.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first; the order is the same in every worker."""
    first = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(LONGEST)))


def fetch_past(dataset: Path, out: Path, length: int = 1000) -> Path:
    """What Feast answers as of the cut, without Feast: `histories.parquet` at `out`."""
    rows = out.with_name("rows.parquet")
    write_user_history(dataset, length, rows)
    found = pd.merge_asof(
        entity_rows(dataset).sort_values("event_timestamp"),
        pd.read_parquet(rows).sort_values("event_timestamp"),
        on="event_timestamp",
        by="user_id",
    )
    check_histories(found, out, dataset)
    return out


@pytest.fixture(scope="session")
def fetch() -> Callable[[Path, Path], Path]:
    """`fetch(dataset, out)` writes the histories as of the cut."""
    return fetch_past


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server: the variables by which clients find it."""
    from tests.s3_server import serve_s3

    with serve_s3(tmp_path_factory.mktemp("s3")) as variables:
        yield variables


@pytest.fixture(scope="session")
def movielens_source(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Every sixth user of MovieLens-100K as files of one's own: CSV interactions with ratings, Parquet items."""
    folder = tmp_path_factory.mktemp("movielens-source")
    source = open_source(DataConfig())
    events = pd.read_csv(source.interactions.path, sep="\t")
    events.columns = ["user_id", "item_id", "rating", "timestamp"]
    events[events["user_id"] % 6 == 0].to_csv(folder / "slice.csv", index=False)
    assert source.items is not None
    items = pd.read_csv(source.items.path, sep="\t", dtype=str, keep_default_na=False)
    items.columns = ["item_id", "title", "year", "categories"]
    items["title"] += " (" + items.pop("year") + ")"
    items["categories"] = items["categories"].str.split()
    items.to_parquet(folder / "items.parquet")
    return DataConfig(
        loader="files",
        interactions=str(folder / "slice.csv"),
        items=str(folder / "items.parquet"),
        rating_scale=(1, 5),
        positive_at=0.75,
        min_item_events=8,
    )


@pytest.fixture(scope="session")
def movielens(movielens_source: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small slice of MovieLens-100K as a data set, each user cut on their own."""
    out = tmp_path_factory.mktemp("movielens") / "dataset"
    load_interactions(movielens_source, SplitConfig(), 7, out)
    return out


@pytest.fixture(scope="session")
def movielens_histories(movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice's histories as of the cut."""
    return fetch_past(movielens, tmp_path_factory.mktemp("histories") / "histories.parquet")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight users (u0 to u7) with ten events each of twelve items (i0 to i11), one a day, ids alone.

    User n consumes items n, n + 1, ... (modulo 12); every third event is disliked. Nothing in it is random.
    """
    folder = tmp_path_factory.mktemp("tiny")
    events = pd.DataFrame(
        [
            {
                "user_id": f"u{user}",
                "item_id": f"i{(user + step) % 12}",
                "timestamp": pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(step, "D"),
                "engagement": 0.0 if step % 3 == 2 else 1.0,
            }
            for user in range(8)
            for step in range(10)
        ]
    )
    events.to_parquet(folder / "tiny.parquet")
    config = DataConfig(loader="files", interactions=str(folder / "tiny.parquet"))
    load_interactions(config, SplitConfig(cut="global"), 6, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_histories(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set's histories as of the cut."""
    return fetch_past(tiny, tmp_path_factory.mktemp("tiny-histories") / "histories.parquet")


@pytest.fixture(scope="session")
def planner_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `clusters`, `transitions` and `base`, a random tiny language model with a tokenizer."""
    from tests.planner.tiny_planner import write_base, write_world

    return write_base(write_world(tmp_path_factory.mktemp("planner-world")))


@pytest.fixture(scope="session")
def planner_config(planner_world: Path) -> PlannerConfig:
    """Enough training for the tiny model."""
    from tests.planner.tiny_planner import tiny_planner_config

    return tiny_planner_config(planner_world)


@pytest.fixture(scope="session")
def trained_planner(planner_world: Path, planner_config: PlannerConfig) -> tuple[Path, dict[str, object]]:
    """A fine-tuned planner's folder and its measures."""
    from newfound.planner.training.finetune import finetune_planner

    out = planner_world / "planner"
    return out, finetune_planner(planner_world / "transitions", planner_world / "clusters", planner_config, 3, out)
