"""Releases and Feast's registry on a real S3 server: the clients are those of the cluster."""

from __future__ import annotations

import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from s3fs import S3FileSystem

from components._trainee import fetch
from feature_repo.store import open_store
from newfound.config import DataConfig, SplitConfig, TrainingConfig
from newfound.datasets import load_interactions
from newfound.errors import DataError, ReleaseError
from newfound.release import pointer
from newfound.release import store as release
from newfound.release.new_items import add_new_items, new_items_version, read_new_items
from newfound.release.pointer import move
from newfound.release.storage import Storage
from pipelines.settings import settings_of
from pipelines.training import STEPS
from tests.chain.certificates import Authority
from tests.release.test_new_items import made_up
from tests.release.test_store import _publish
from tests.s3_server import make_bucket, serve_s3

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bucket(s3: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own; the environment leads to it."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    name = f"newfound-{zlib.crc32(request.node.nodeid.encode()):08x}"
    make_bucket(s3, name)
    S3FileSystem.clear_instance_cache()  # its clients are of the server before
    return f"s3://{name}"


def _name(bucket: str) -> str:
    return bucket.removeprefix("s3://")


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
    boto3.client("s3").put_object(Bucket=_name(bucket), Key=f"releases/{second.id}/items.parquet", Body=b"twO")
    with pytest.raises(ReleaseError, match="items.parquet"):
        release.load(root, second.id, tmp_path / "elsewhere")


def test_of_two_publishers_one_wins_and_the_other_is_told(bucket: str, tmp_path: Path) -> None:
    root = f"{bucket}/releases"
    ids = [_publish(tmp_path / "run", root, f"{n}", promote=n == 0).id for n in range(5)]
    store = Storage(root)
    with ThreadPoolExecutor(4) as pool:
        moves = [pool.submit(move, store, one, ids[0]) for one in ids[1:]]
    won = [one.result().release for one in moves if one.exception() is None]
    assert [release.current(root)] == won
    assert all("left as it is" in str(one.exception()) for one in moves if one.exception() is not None)
    lost = next(one for one in ids[1:] if one not in won)
    assert release.rollback(root, ids[0], tmp_path / "cache").id == ids[0]
    _publish(tmp_path / "run", root, "a late refresh")
    assert release.current(root) == ids[0], "held"
    assert release.promote(root, lost, tmp_path / "cache").id == release.current(root)
    for harm in (b"{", b""):
        boto3.client("s3").put_object(Bucket=_name(bucket), Key="releases/current", Body=harm)
        assert release.current(root) == ids[0], "the one before"


def test_a_mover_that_was_overtaken_leaves_the_fallback_alone(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read `current` before a rollback: damage must not lead from there to the release that was rolled back."""
    root, check, overtaken = f"{bucket}/releases", pointer.check_expected, []
    good, bad = (_publish(tmp_path / "run", root, text).id for text in ("good", "bad"))
    late = _publish(tmp_path / "run", root, "late", promote=False).id

    def slowly(*arguments: Any) -> None:
        check(*arguments)
        if not overtaken:
            overtaken.append(release.rollback)
            release.rollback(root, good, tmp_path / "cache")

    monkeypatch.setattr(pointer, "check_expected", slowly)
    with pytest.raises(ReleaseError, match="left as it is"):
        pointer.move(Storage(root), late, bad)
    assert release.current(root) == good
    boto3.client("s3").put_object(Bucket=_name(bucket), Key="releases/current", Body=b"{")
    assert release.current(root) == good


def test_new_items_are_added_by_compare_and_swap(bucket: str, tmp_path: Path) -> None:
    root, release_id = f"{bucket}/releases", _publish(tmp_path / "run", f"{bucket}/releases", "one").id
    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(add_new_items, root, made_up(f"i{n}", release_id=release_id)) for n in range(4)]
        assert [one.exception() for one in adding] == [None] * 4
    found, version = read_new_items(root, release_id), new_items_version(root, release_id)
    assert found is not None and sorted(found.ids) == ["i0", "i1", "i2", "i3"]
    add_new_items(root, made_up("i4", release_id=release_id))
    assert new_items_version(root, release_id) != version is not None
    assert release.load(root, release_id, tmp_path / "cache").id == release_id


def test_feast_keeps_its_registry_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The production store's file, applied with Feast's own command, as an operator or a pipeline does."""
    told = {
        "NEWFOUND_FEATURES": f"{bucket}/features",
        "NEWFOUND_REDIS": "127.0.0.1:1",  # nobody asks it
        "FEAST_FS_YAML_FILE_PATH": str(ROOT / "feature_repo" / "feature_store.production.yaml"),
        "FEAST_USAGE": "False",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    feast = [str(Path(sys.executable).with_name("feast")), "--chdir", "feature_repo"]
    applied = subprocess.run([*feast, "apply", "--skip-source-validation"], cwd=ROOT, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr[-2000:]
    assert open_store().get_feature_service("explorer").name == "explorer"


def test_interactions_are_loaded_from_there(bucket: str, movielens_source: DataConfig, tmp_path: Path) -> None:
    put = boto3.client("s3").upload_file
    put(str(movielens_source.interactions), _name(bucket), "data/slice.csv")
    put(str(movielens_source.items), _name(bucket), "data/items.parquet")
    urls = {"interactions": f"{bucket}/data/slice.csv", "items": f"{bucket}/data/items.parquet"}
    there = movielens_source.model_copy(update=urls)
    here = load_interactions(movielens_source, SplitConfig(), 7, tmp_path / "here")
    assert load_interactions(there, SplitConfig(), 7, tmp_path / "there")["fingerprint"] == here["fingerprint"]
    absent = there.model_copy(update={"items": f"{bucket}/data/absent.parquet"})
    with pytest.raises(DataError, match=rf"{bucket}/data/absent\.parquet: cannot be fetched"):
        load_interactions(absent, SplitConfig(), 7, tmp_path / "absent")


def test_caches_follow_what_lies_there(bucket: str) -> None:
    def written(content: bytes) -> dict[str, str]:
        boto3.client("s3").put_object(Bucket=_name(bucket), Key="mine.csv", Body=content)
        data = {"loader": "files", "interactions": f"{bucket}/mine.csv"}
        return settings_of(STEPS, TrainingConfig.model_validate({"data": data}), "image")

    one, again, other = written(b"one"), written(b"one"), written(b"two")
    assert one["data"] == again["data"] != other["data"]
    assert one["clusters"] == other["clusters"]


def test_train_jobs_fetch_files_and_folders_from_there(bucket: str, tmp_path: Path) -> None:
    put = boto3.client("s3").put_object
    for key in ("in/file.json", "in/folder/a.txt", "in/folder/deep/b.txt"):
        put(Bucket=_name(bucket), Key=key, Body=key.encode())
    file = Path(fetch(f"{bucket}/in/file.json", tmp_path / "file"))
    folder = Path(fetch(f"{bucket}/in/folder", tmp_path / "folder"))
    assert file.read_text() == "in/file.json"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a.txt", "deep/b.txt"}


@pytest.mark.slow  # a server of its own; `make chains` runs it
def test_a_server_with_an_authority_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWS_CA_BUNDLE` and the endpoint, as components/private-object-store sets them, and nothing else."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("", host="localhost")
    (tmp_path / "s3").mkdir()
    with serve_s3(tmp_path / "s3", (certificate, key, authority.root)) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        make_bucket(variables, "own")
        S3FileSystem.clear_instance_cache()
        made = _publish(tmp_path / "run", "s3://own/releases")
        assert release.load("s3://own/releases", cache=tmp_path / "cache").id == made.id
        assert boto3.client("s3").list_objects_v2(Bucket="own")["KeyCount"] > 0  # Feast's registry is read so
        monkeypatch.setenv("AWS_CA_BUNDLE", str(Authority(tmp_path / "other").root))
        S3FileSystem.clear_instance_cache()
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            release.current("s3://own/releases")
