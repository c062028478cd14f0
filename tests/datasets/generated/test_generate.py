"""Generated data: the same from the same arguments, in the shape of the measured set, and data like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from newfound.cli import app
from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.datasets.generated import generate as module
from newfound.datasets.generated.calibration import RANKS, Calibration, load_calibration, measure
from newfound.datasets.generated.generate import generate
from newfound.datasets.generated.world import Size
from newfound.errors import ConfigError
from newfound.measures import gini

SMALL = Size(interactions=6000, users=300, items=500, clusters=12, seed=3)
MOVIELENS = Size(interactions=100_000, users=943, items=1682, clusters=120, seed=7)


def load(folder: Path, **settings: object) -> Path:
    files = {name: str(folder / f"{name}.parquet") for name in ("interactions", "items")}
    load_interactions(DataConfig(loader="files", **files, **settings), SplitConfig(), 0, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def like_movielens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    """As many users, items and events as MovieLens-100K has: the loaded data set, and what is measured on it."""
    folder = tmp_path_factory.mktemp("generated")
    made = generate(MOVIELENS, "movielens", folder / "made")
    assert made == {"interactions": 100_000, "users": 943, "items": 1682, "clusters": 120}
    dataset = load(folder / "made", min_user_events=1)
    interests = pd.read_parquet(folder / "made" / "interests.parquet")
    return dataset, measure(dataset, interests.assign(parent=interests["description"].str.split().str[0]))


def test_the_same_arguments_make_the_same_data_whatever_is_written_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("interactions", "items", "interests")
    tables = []
    for run, rows in enumerate((module.ROWS, 1000)):
        monkeypatch.setattr(module, "ROWS", rows)
        generate(SMALL, "movietweetings", tmp_path / str(run))
        tables.append([pq.read_table(tmp_path / str(run) / f"{name}.parquet") for name in names])
    assert all(one.equals(other) for one, other in zip(*tables, strict=True))
    assert pq.ParquetFile(tmp_path / "1" / "interactions.parquet").num_row_groups > 5
    generate(Size(6000, 300, 500, 12, seed=4), "movietweetings", tmp_path / "other")
    assert not pq.read_table(tmp_path / "other" / "interactions.parquet").equals(tables[0][0])


def test_a_generated_set_comes_near_the_measured_one(like_movielens: tuple[Path, Calibration]) -> None:
    dataset, found = like_movielens
    real = load_calibration("movielens")
    # What was measured: MovieLens-100K has a Gini of .629 over its items, and lengths of 106 (mean) and 65 (median).
    events = Dataset(dataset).frame("interactions")
    lengths = events["user_id"].value_counts()
    assert gini(events["item_id"].value_counts().to_numpy(np.float64)) == pytest.approx(0.629, abs=0.04)
    assert lengths.mean() == pytest.approx(106, rel=0.01) and lengths.median() == pytest.approx(65, rel=0.08)
    head = {rank: (one, other) for rank, one, other in zip(RANKS, found.popularity, real.popularity, strict=True)}
    for rank in (2**-6, 2**-4, 0.25, 0.5):
        assert head[rank][0] == pytest.approx(head[rank][1], rel=0.2), rank
    assert found.activity == pytest.approx(real.activity, abs=0.02)
    assert found.opening[:8] == pytest.approx(real.opening[:8], abs=0.06)
    assert (found.staying, found.kinship) == pytest.approx((real.staying, real.kinship), abs=0.03)
    assert (found.quality, found.mildness) == pytest.approx((real.quality, real.mildness), abs=0.04)
    assert np.log1p(found.gaps) == pytest.approx(np.log1p(real.gaps), abs=0.7)
    assert found.span == pytest.approx(real.span, rel=0.05)
    assert [share for _, share in found.ratings] == pytest.approx([share for _, share in real.ratings], abs=0.03)
    assert found.words[:-1] == pytest.approx(real.words[:-1], abs=1.01)
    assert found.telling == pytest.approx(real.telling, rel=0.4)


def test_another_shape_makes_another_set(tmp_path: Path) -> None:
    """Toys has no ratings and no times, and more words of its interests' own."""
    generate(SMALL, "toys", tmp_path / "made")
    data = Dataset(load(tmp_path / "made", min_user_events=1))
    assert data.info["time"] == "ordinal" and data.info["counts"]["positives"] == 6000


def test_every_item_has_an_interest(tmp_path: Path) -> None:
    generate(SMALL, "movielens", tmp_path / "made")
    dataset = load(tmp_path / "made", min_user_events=2, min_item_events=0)
    interests = pd.read_parquet(tmp_path / "made" / "interests.parquet")
    assert set(interests["item_id"]) == set(Dataset(dataset).frame("items")["item_id"])
    assert interests["description"].nunique() == interests["cluster"].nunique() == 12


def test_nobody_meets_an_item_twice_and_times_ascend(like_movielens: tuple[Path, Calibration]) -> None:
    log = pd.read_parquet(like_movielens[0].parent / "interactions.parquet")
    assert not log.duplicated(["user_id", "item_id"]).any()
    assert log["timestamp"].is_monotonic_increasing and log["timestamp"].dt.tz is not None


@pytest.mark.parametrize("size", [(5, 10, 9, 1), (100, 10, 9, 1), (100, 10, 100, 801), (100, 10, 40, 41)])
def test_sizes_that_cannot_be_are_refused(size: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Size(*size)


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="movielens"):
        generate(SMALL, "nobody", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_the_command_line_generates(tmp_path: Path) -> None:
    arguments = ["generate", str(tmp_path / "made"), "--interactions", "900", "--users", "90", "--items", "900"]
    told = CliRunner().invoke(app, [*arguments, "--clusters", "7", "--like", "toys"])
    assert told.exit_code == 0 and "900 interactions, 90 users, 900 items, 7 clusters" in told.output
    assert pq.read_metadata(tmp_path / "made" / "interactions.parquet").num_rows == 900
