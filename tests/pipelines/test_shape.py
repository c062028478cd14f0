"""The training pipeline as a cluster shapes it, by kfp's local runner: shards and workers side by side."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import optuna
import pytest

from newfound.config import DataConfig, TrainingConfig, load_config
from newfound.release import store as releases
from pipelines.local import ENVIRONMENT
from pipelines.platform import Platform
from pipelines.training import arguments, define_training
from tests.tiny_pipeline import ROOT, TinyPipeline, tiny_language_model

SHARDS, WORKERS = 3, 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def config(movielens_source: DataConfig, tmp_path: Path) -> TrainingConfig:
    """The small pipeline's, with a study in a database and more shards than run at once."""
    tiny_language_model(tmp_path / "model")
    file = tmp_path / "config.yaml"
    small = TinyPipeline(tmp_path, movielens_source).config
    small["data"] = movielens_source.model_dump(mode="json")
    small["table"] = {**small["table"], "shards": SHARDS}  # type: ignore[dict-item]
    small["tuning"] = {**small["tuning"], "trials": 3, "storage": f"sqlite:///{tmp_path}/study.db"}  # type: ignore[dict-item]
    file.write_text(json.dumps(small))
    return load_config(file)


def test_the_clusters_shape_publishes_a_release(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import local

    for name, value in {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NEWFOUND_FEATURES", "FEAST_FS_YAML_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)
    platform = Platform(image="newfound-train:0.1.0", table_shards_at_once=2, tuning_workers=WORKERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "work"), enable_caching=False)
        define_training(platform, SHARDS)(**arguments(config, str(tmp_path / "releases")))

    release = releases.load(str(tmp_path / "releases"))
    record = json.loads((release.path / "table" / "table.json").read_text())
    assert record["measures"]["contexts"] == 16 * 15
    # Two workers shared one study, and whoever wrote down what they found ran no further trial.
    (study,) = optuna.get_all_study_names(config.tuning.storage)
    trials = optuna.load_study(study_name=study, storage=config.tuning.storage).get_trials()
    assert 3 <= sum(trial.state.is_finished() for trial in trials) <= 3 + WORKERS - 1
    shards = list((tmp_path / "work").glob("*/**/build-table-shard*/part/shard.json"))
    assert sorted(json.loads(file.read_text())["shard"] for file in shards) == sorted([*range(SHARDS)] * 2)
