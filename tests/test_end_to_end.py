"""The whole training pipeline through kfp's local runner, on a slice of MovieLens-100K, with a tiny planner."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from newfound.clusters import Clusters
from newfound.config import DataConfig, EvaluationConfig
from newfound.datasets import Dataset
from newfound.features.histories import Histories
from newfound.gates import release_flags
from newfound.recommend.recommender import Recommender, history_of_user
from newfound.release import store as releases
from tests.tiny_pipeline import ROOT, TinyPipeline, tiny_language_model

STEPS = 21

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole run


@pytest.fixture(scope="module")
def pipeline(movielens_source: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> TinyPipeline:
    """After a first, whole run."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_language_model(folder / "model")
    pipeline = TinyPipeline(folder, movielens_source)
    done = pipeline.run()
    assert done.returncode == 0, done.stdout + done.stderr
    finished = [line for line in done.stdout.splitlines() if line.startswith("✓")]
    assert len(finished) == STEPS and not any("cached" in line for line in finished)
    for told in ("The next new interest", "NovelRecall@10", "chance", "The next item", "report:", "release:"):
        assert told in done.stdout
    return pipeline


def test_a_whole_run_publishes_a_release_that_verifies(pipeline: TinyPipeline) -> None:
    manifest = releases.verify(str(pipeline.releases))
    data = Dataset(pipeline.runs / "dataset")
    assert manifest.lineage["fingerprint"] == data.info["fingerprint"]
    assert all(gate["passed"] for gate in manifest.gates.values())
    parts = {name.split("/")[0] for name in manifest.files}
    assert parts == {"clusters", "planner", "table", "ranker", "decision", "items.parquet"}
    # The small experiment's figures, and what they say of this release.
    assert manifest.measures["experiment.people.found"] > 0
    assert 0 <= manifest.measures["experiment.planner.found"] <= 1
    assert manifest.flags == release_flags(manifest.measures, EvaluationConfig(bootstrap=50))
    release = releases.load(str(pipeline.releases))
    for file in release.path.rglob("*.parquet"):
        assert "user_id" not in pq.read_schema(file).names


def test_its_measures_stand_beside_chance_and_rivals(pipeline: TinyPipeline) -> None:
    measures = json.loads((pipeline.runs / "evaluation" / "metrics.json").read_text())
    interests = len(Clusters.load(pipeline.runs / "clusters").interface)
    # At least as likely as one cluster of all, and more so the longer the histories are.
    assert 1 / interests <= measures["chance.novel_recall@1"] < measures["chance.novel_recall@10"] <= 1
    rivals = {key.split(".")[1] for key in measures if key.startswith("rival.")}
    assert {"most_popular", "pair_frequency", "nearest_embedding", "random_novel", "ranker_novel"} <= rivals
    for key in ("planner.match_rate", "planner.novel_recall@10", "ranker.hr@10", "ranker.ndcg@10", "novel_hr@10"):
        assert 0 <= measures[key] <= 1
    page = (pipeline.runs / "evaluation" / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_it_recommends_new_interests_from_the_release(pipeline: TinyPipeline) -> None:
    release = releases.load(str(pipeline.releases))
    clusters = Clusters.load(release.path / "clusters")
    user = Histories.load(pipeline.runs / "histories").users[0]
    history = history_of_user(pipeline.runs / "histories", user)
    assert len(history.item_ids) == (Dataset(pipeline.runs / "dataset").frame("interactions")["user_id"] == user).sum()

    slate = Recommender.open(release.path).recommend(history, k=10, novel=3, seed=1)

    items = [entry.item for entry in slate.items]
    assert len(set(items)) == 10 and not set(items) & set(history.item_ids)
    consumed = {clusters.cluster_of[item] for item in history.item_ids}
    novel = [entry.item for entry in slate.items if entry.slot == "novel"]
    unseen = len(clusters.interface) - len(consumed)
    # A cluster takes a second slot only where exploration draws it twice.
    assert min(3, unseen) <= len(novel) <= 3
    assert all(clusters.cluster_of[item] not in consumed for item in novel)


def test_the_online_store_serves_what_was_learned_from(pipeline: TinyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.store import open_store

    monkeypatch.delenv("FEAST_FS_YAML_FILE_PATH", raising=False)
    monkeypatch.setenv("NEWFOUND_FEATURES", str((pipeline.runs / "features").resolve()))
    store = open_store(pipeline.runs / "features")
    histories = Histories.load(pipeline.runs / "histories")
    user = histories.users[0]
    answer = store.get_online_features(
        features=store.get_feature_service("explorer"), entity_rows=[{"user_id": user}]
    ).to_dict()
    assert answer["item_ids"] == [histories.of(user).item_ids]
    clusters = Clusters.load(pipeline.runs / "clusters")
    assert answer["clusters_digest"] == [clusters.digest]
    assert answer["seen_leaves"] == [sorted({clusters.leaf_of[item] for item in histories.of(user).item_ids})]


def test_nothing_changed_means_nothing_runs(pipeline: TinyPipeline) -> None:
    before = [manifest.id for manifest in releases.list_releases(str(pipeline.releases))]
    done = pipeline.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("cached" in line for line in done.stdout.splitlines() if line.startswith("✓")) == STEPS
    assert [manifest.id for manifest in releases.list_releases(str(pipeline.releases))] == before


def test_a_gate_that_fails_is_named_and_nothing_is_published(pipeline: TinyPipeline) -> None:
    before = {file: file.read_bytes() for file in pipeline.releases.rglob("*.json")}
    done = pipeline.run(min_recall_over_chance=1000.0)
    assert done.returncode == 1
    assert "error: check gates: gate 'recall_over_chance'" in done.stderr
    assert "expected at least 1000" in done.stderr and "Traceback" not in done.stdout + done.stderr
    assert {file: file.read_bytes() for file in pipeline.releases.rglob("*.json")} == before
    assert releases.verify(str(pipeline.releases)).id
    # What was measured can still be looked at.
    assert (pipeline.runs / "evaluation" / "report.html").is_file()


def test_a_release_that_was_damaged_is_published_anew(pipeline: TinyPipeline) -> None:
    damaged = releases.load(str(pipeline.releases))
    file = damaged.path / "items.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    done = pipeline.run()
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line for line in done.stdout.splitlines() if line.startswith("→")]
    # The interests hang on clusters and histories, which are as they were.
    assert [line.split("/21 ")[1] for line in ran] == ["publish release"]
    assert releases.verify(str(pipeline.releases)).id != damaged.id


def _batch(pipeline: TinyPipeline) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines local batch` on the slice."""
    command = [sys.executable, "-m", "pipelines", "local", "batch", "--config", str(pipeline.folder / "config.yaml")]
    command += ["--interactions", str(pipeline.source.interactions), "--runs", str(pipeline.folder / "batch")]
    command += ["--releases", str(pipeline.releases), "--out", str(pipeline.folder / "slates"), "--k", "6"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})


def test_the_batch_pipeline_writes_everybodys_slate(pipeline: TinyPipeline) -> None:
    first = _batch(pipeline)
    assert first.returncode == 0, first.stdout + first.stderr
    release = releases.verify(str(pipeline.releases)).id
    slates = pq.read_table(pipeline.folder / "batch" / "slates" / "slates.parquet")
    users = set(Dataset(pipeline.folder / "batch" / "dataset").frame("users")["user_id"])
    assert set(slates["user_id"].to_pylist()) == users and len(slates) == 6 * len(users)
    assert set(slates["release"].to_pylist()) == {release}
    copy = pipeline.folder / "slates" / release / "part-00000.parquet"
    assert pq.read_table(copy).equals(slates)
    again = _batch(pipeline)
    assert sum("cached" in line for line in again.stdout.splitlines() if line.startswith("✓")) == 4

    # What is taken down is in no slate that a cache would have kept.
    gone = slates["item_id"][0].as_py()
    (pipeline.releases / "takedown.json").write_text(json.dumps({"items": [gone]}))
    without = _batch(pipeline)
    (pipeline.releases / "takedown.json").write_text("{}")
    assert without.returncode == 0, without.stdout + without.stderr
    items = pq.read_table(pipeline.folder / "batch" / "slates" / "slates.parquet")["item_id"].to_pylist()
    assert gone not in items
