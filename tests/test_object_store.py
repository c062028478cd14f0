"""Releases and Feast's registry on S3, over HTTP against moto's server: the clients are those of the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from newfound import release
from newfound.errors import ReleaseError
from tests.test_release import _publish

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "FEAST_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="newfound")
    yield "s3://newfound"
    server.stop()


def test_releases_are_published_found_fetched_and_rolled_back(bucket: str, tmp_path: Path) -> None:
    root = f"{bucket}/releases"
    assert release.current(root) is None and release.list_releases(root) == []
    first = _publish(tmp_path / "run", root, "one")
    assert [made.id for made in release.list_releases(root)] == [first.id]
    second = _publish(tmp_path / "run", root, "two")
    assert [made.id for made in release.list_releases(root)] == [first.id, second.id], "listings are not remembered"
    assert release.load(root, cache=tmp_path / "cache").id == second.id
    fetched = release.fetch(root, first.id, tmp_path / "engine")
    assert (fetched.path / "items.parquet").read_text() == "one"
    assert release.rollback(root, cache=tmp_path / "cache").id == first.id == release.current(root)
    boto3.client("s3").put_object(Bucket="newfound", Key=f"releases/{second.id}/items.parquet", Body=b"twO")
    with pytest.raises(ReleaseError, match="items.parquet"):
        release.load(root, second.id, tmp_path / "elsewhere")


def test_feast_keeps_its_registry_there(bucket: str, tmp_path: Path) -> None:
    """The production store's file, applied with Feast's own command, as an operator or a pipeline does."""
    environment = {
        **os.environ,
        "NEWFOUND_FEATURES": f"{bucket}/features",
        "NEWFOUND_REDIS": "127.0.0.1:1",  # nobody asks it
        "FEAST_FS_YAML_FILE_PATH": str(ROOT / "feature_repo" / "feature_store.production.yaml"),
        "FEAST_USAGE": "False",
    }
    feast = [str(Path(sys.executable).with_name("feast")), "--chdir", "feature_repo"]
    applied = subprocess.run(
        [*feast, "apply", "--skip-source-validation"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert applied.returncode == 0, applied.stderr[-2000:]
    code = "from feast import FeatureStore; print(FeatureStore('feature_repo').get_feature_service('explorer').name)"
    read = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert read.stdout.strip() == "explorer", read.stderr[-2000:]
