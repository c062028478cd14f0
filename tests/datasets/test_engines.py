"""Every table step gives the same files on Spark as on DuckDB: rows, their order, columns and types."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.load_interactions import load_interactions as load_step
from newfound import schema
from newfound.clusters import Clusters
from newfound.compute.engine import running_on
from newfound.config import DataConfig, SparkConfig, SplitConfig, TrainingConfig, TransitionsConfig, parse_config
from newfound.datasets import Dataset, load_interactions
from newfound.datasets.engine import connect
from newfound.errors import ConfigError, DataError
from newfound.evaluation.cluster_sequence import training_walks
from newfound.evaluation.end_to_end import Markov, Popularity
from newfound.evaluation.moments import read_journeys
from newfound.features.user_history import write_user_history
from newfound.features.user_interests import write_interests
from newfound.transitions.artifact import Transitions
from newfound.transitions.mine import mine_transitions
from pipelines.settings import settings_of
from pipelines.training import STEPS
from tests.transitions.conftest import write_clusters

SPARK = TrainingConfig(
    engine="spark",
    spark=SparkConfig(
        master="local[2]",
        properties={
            "spark.driver.memory": "1g",
            "spark.sql.shuffle.partitions": "2",
            # A process that lives for seconds: what takes long to compile never pays.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        },
    ),
)
DUCKDB = TrainingConfig()
Step = Callable[[Path], object]
Both = Callable[[Step], Path]
LEFT_BEHIND = ("metastore_db", "derby.log", "spark-warehouse", "artifacts")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Runs a step on both engines, compares its results and all files that it writes, and answers DuckDB's folder."""
    pytest.importorskip("pyspark")
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch, running_on(SPARK):
        patch.setattr(tempfile, "tempdir", str(temporary))

        def run(step: Step) -> Path:
            folder = tmp_path_factory.mktemp("engines")
            (folder / "spark").mkdir()
            on_spark = step(folder / "spark")
            (folder / "duckdb").mkdir()
            with running_on(DUCKDB):
                on_duckdb = step(folder / "duckdb")
            assert on_spark == on_duckdb
            files = [_files(folder / engine) for engine in ("spark", "duckdb")]
            assert files[0].keys() == files[1].keys()
            for name, file in files[0].items():
                same(file, files[1][name])
            return folder / "duckdb"

        assert connect().name == "pyspark"
        yield run
    assert list(temporary.iterdir()) == []
    assert not [name for name in LEFT_BEHIND if Path(name).exists()]


def _files(folder: Path) -> dict[Path, Path]:
    return {file.relative_to(folder): file for file in folder.rglob("*.*")}


def same(one: Path, other: Path) -> None:
    if one.suffix == ".parquet":
        ours, theirs = pq.read_table(one), pq.read_table(other)
        assert ours.schema.equals(theirs.schema, check_metadata=True)
        assert ours.equals(theirs), one.name
    else:
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.fixture(scope="module")
def loaded(both: Both, movielens_source: DataConfig) -> Path:
    return both(lambda out: load_interactions(movielens_source, SplitConfig(), 7, out / "data")) / "data"


@pytest.fixture(scope="module")
def clusters(loaded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clusters of what was loaded, by nothing but the items' order."""
    items = Dataset(loaded).frame("items")[schema.ITEM].tolist()
    of = {f"c{number:02}": items[number::12] for number in range(12)}
    return write_clusters(tmp_path_factory.mktemp("clusters") / "clusters", of)


@pytest.fixture(scope="module")
def histories(loaded: Path, fetch: Callable[[Path, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with running_on(TrainingConfig()):
        return fetch(loaded, tmp_path_factory.mktemp("histories") / "histories.parquet")


def test_loading_files_of_ones_own(both: Both, tmp_path: Path) -> None:
    """Odd ids, times as text, ties, bad rows, categories as text, items that nobody consumed."""
    users = ["ü", "Z", "a", "a b", "日本", "𝄞", "10", "9", "b'", "[x]"]
    times = ["2024-01-05", "2024/01/06 10:00", "2024-01-06 10:00:00+02", "2024-01-06T08:00:00Z", "2024-1-7 1:2:3.25"]
    rng = np.random.default_rng(1)
    rows = [
        (user, f"i{rng.integers(9)}", f"{times[step % 5]}", ["1_0", " 5 ", "1e1", "7.5"][step % 4], step % 3 == 0)
        for user in users
        for step in range(12)
    ]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating", "positive"])
    events = events.drop_duplicates(["user_id", "item_id", "timestamp"])
    bad = [("", "i1", times[0], "5", True), ("x\ty", "i1", times[0], "5", True), ("a", "i1", "2024", "5", True),
           ("a", "i1", times[1], "5d", True), ("a", "i77", times[1], "5", True)]  # fmt: skip
    events = pd.concat([events, pd.DataFrame(bad, columns=events.columns), events.iloc[:2]])
    events.to_csv(tmp_path / "events [1].csv", index=False)
    items = [(f"i{n}", ["Title, é", "  ", None][n % 3], ["a|b", "", " a | |ß", "."][n % 4]) for n in range(11)]
    pd.DataFrame(items, columns=["item_id", "title", "categories"]).to_csv(tmp_path / "items.csv", index=False)
    config = DataConfig(
        loader="files",
        interactions=str(tmp_path / "events [1].csv"),
        items=str(tmp_path / "items.csv"),
        rating_scale=(0, 10),
        bad_rows=0.2,
        min_user_events=2,
        min_item_events=0,
    )
    data = both(lambda out: load_interactions(config, SplitConfig(cut="global"), 3, out / "data")) / "data"
    record = json.loads((data / "dataset.json").read_text())
    assert record["time"] == "datetime" and len(record["bad_rows"]["interactions"]["kinds"]) == 6
    strict = config.model_copy(update={"bad_rows": 0.0})

    def refused(out: Path) -> str:
        with pytest.raises(DataError) as raised:
            load_interactions(strict, SplitConfig(), 3, out / "data")
        return str(raised.value)

    both(refused)


def test_histories(both: Both, loaded: Path) -> None:
    both(lambda out: write_user_history(loaded, 20, out / "rows.parquet"))


def test_transitions(both: Both, loaded: Path, clusters: Path, histories: Path) -> None:
    config = TransitionsConfig(per_label=3, held_out_pairs=0.2)

    def step(out: Path) -> object:
        measures = mine_transitions(histories, loaded, clusters, config, 5, out / "mined")
        return measures, training_walks(histories, clusters, Transitions.load(out / "mined", Clusters.load(clusters)))

    mined = both(step) / "mined"
    assert (
        pq.read_metadata(mined / "held_out.parquet").num_rows and pq.read_metadata(mined / "balanced.parquet").num_rows
    )


def test_interests(both: Both, loaded: Path, clusters: Path) -> None:
    both(lambda out: write_interests(loaded, clusters / "items.parquet", "digest", out / "interests.parquet"))


def test_evaluation(both: Both, loaded: Path, clusters: Path) -> None:
    def step(_: Path) -> object:
        found = read_journeys(loaded, Clusters.load(clusters), ("test", "validation"), users_at_most=20, seed=2)
        arrays = (found.offsets, found.past, found.items, found.clusters, found.positives, found.engagements)
        popular = Popularity(loaded, sorted(set(found.items)))
        markov = Markov(loaded, popular).score_all([[item] for item in popular.items])
        return found.users, [(array.dtype.str, array.tolist()) for array in arrays], markov.tolist()

    both(step)


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="key 'spark'.*'spark://host:7077' needs `folder`"):
        parse_config({"engine": "spark", "spark": {"master": "spark://host:7077"}}, "mine.yaml")
    with monkeypatch.context() as patch, running_on(SPARK):
        patch.setenv("JAVA_HOME", str(tmp_path))
        with pytest.raises(ConfigError, match=r"engine: spark finds no .*bin/java; expected Java 17"):
            connect()
    nowhere = SparkConfig(master="local[1]", folder=str(tmp_path / "nowhere"))
    elsewhere = SPARK.model_copy(update={"spark": nowhere})
    with running_on(elsewhere), pytest.raises(ConfigError, match=r"spark\.folder: .*nowhere"):
        connect()
    # A pipeline's step runs where its settings say.
    metrics, dataset = (SimpleNamespace(path=str(tmp_path / name), metadata={}) for name in ("metrics", "dataset"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setenv("JAVA_HOME", str(tmp_path))
        load_step.python_func(settings_of(STEPS, SPARK)["data"], dataset, metrics)
    assert "engine: spark finds no" in capfd.readouterr().out
    monkeypatch.delitem(sys.modules, "newfound.datasets.spark", raising=False)
    monkeypatch.setitem(sys.modules, "ibis.backends.pyspark", None)
    with running_on(SPARK), pytest.raises(ConfigError, match=r"finds no pyspark .*newfound\[spark\]"):
        connect()
