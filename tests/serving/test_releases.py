"""Following releases: taken up, refused by file name, rolled back, the previous one stays loaded."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from prometheus_client import REGISTRY

from newfound.errors import ReleaseError
from newfound.release.store import promote, rollback
from newfound.release.takedown import Takedown
from serving.explorer.loaded_release import PARTS, LoadedRelease, build_loaded_release
from serving.releases import Releases
from tests.serving.synthetic import World, publish_world

SMALL = World(parents=2, clusters=6, items=6)


def follow(root: Path, cache: Path, admit=lambda release: True, pinned: str | None = None) -> Releases[LoadedRelease]:
    def build(folder: Path, release: str) -> LoadedRelease:
        return build_loaded_release(folder, release, planner=False, remembered=10)

    cache.mkdir(parents=True, exist_ok=True)
    return Releases(str(root), cache, PARTS, build, 0.01, admit=admit, retry_s=0.0, pinned=pinned)


def publish(root: Path, tmp_path: Path, salt: str, world: World = SMALL) -> str:
    return publish_world(World(**{**world.__dict__, "salt": salt}), root, tmp_path / f"parts{salt}").id


def until(check: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def value(name: str) -> float:
    """A metric's value now; of gauges by callback, that of the releases made last."""
    found = REGISTRY.get_sample_value(name)
    assert found is not None
    return found


def test_nothing_serves_before_the_first_release(tmp_path):
    releases = follow(tmp_path / "releases", tmp_path / "cache")
    releases.look()
    assert releases.get() is None
    first = publish(tmp_path / "releases", tmp_path, "a")
    releases.look()
    assert releases.get() is not None and releases.get().release == first == releases.active


def test_a_new_release_is_taken_up_and_rolled_back(tmp_path):
    root = tmp_path / "releases"
    first, releases = publish(root, tmp_path, "a"), follow(root, tmp_path / "cache")
    releases.look()
    second = publish(root, tmp_path, "b")
    releases.look()
    assert releases.active == second and set(releases.loaded) == {first, second}
    assert releases.other([first]) is releases.loaded[first] and releases.other([second]) is None
    before = releases.loaded[first]
    rollback(str(root))
    releases.look()
    assert releases.active == first and releases.get() is before, "what is loaded is not loaded again"
    third = publish(root, tmp_path, "c")
    releases.look()
    assert releases.active == first, "a rollback holds until a release is promoted"
    promote(str(root), third)
    releases.look()
    assert set(releases.loaded) == {first, third}


def test_a_pinned_release_serves_whatever_is_current(tmp_path):
    root = tmp_path / "releases"
    first, second = publish(root, tmp_path, "a"), publish(root, tmp_path, "b")
    releases = follow(root, tmp_path / "cache", pinned=first)
    releases.look()
    assert releases.active == first
    rollback(str(root), second)
    releases.look()
    assert releases.active == first and set(releases.loaded) == {first}


def test_from_a_store_only_what_serves_is_copied_and_nothing_stays(tmp_path):
    root = f"memory://serving-{tmp_path.name}"
    local = tmp_path / "releases"
    ids = [publish(local, tmp_path, "a"), publish(local, tmp_path, "b")]
    fs, base = fsspec.core.url_to_fs(root)
    releases = Releases(
        root, tmp_path / "cache", PARTS, lambda folder, release: sorted(p.name for p in folder.iterdir()), 1
    )
    (tmp_path / "cache").mkdir()
    fs.pipe_file(f"{base}/takedown.json", b"{}")
    for release in ids:
        fs.put(f"{local / release}/", f"{base}/{release}/", recursive=True)
        fs.pipe_file(f"{base}/current", json.dumps({"release": release}).encode())
        releases.look()
        assert releases.active == release
        assert releases.get() == sorted({part.split("/")[0] for part in (*PARTS, "manifest.json")})
        assert list((tmp_path / "cache").iterdir()) == [], "downloads would fill the volume, release by release"


def test_a_release_waits_until_it_is_admitted(tmp_path):
    root, allowed = tmp_path / "releases", set[str]()
    first, releases = publish(root, tmp_path, "a"), follow(root, tmp_path / "cache", admit=allowed.__contains__)
    releases.look()
    assert releases.active == first, "the first one has nothing to wait for"
    second = publish(root, tmp_path, "b")
    releases.look()
    assert releases.active == first
    allowed.add(second)
    releases.look()
    assert releases.active == second


def _truncate(folder: Path) -> str:
    file = folder / "ranker" / "ranker.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    return "ranker.safetensors"


def _flip(folder: Path) -> str:
    file = folder / "table" / "log_probs.npy"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "log_probs.npy"


def _remove(folder: Path) -> str:
    (folder / "clusters" / "tree.parquet").unlink()
    return "tree.parquet"


def _add(folder: Path) -> str:
    (folder / "clusters" / "extra.bin").write_bytes(b"x")
    return "extra.bin"


def _manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text("{")
    return "manifest.json"


def _mix(folder: Path) -> str:
    """Another release's table, under a manifest that vouches for it."""
    import hashlib

    other = folder.parent.parent / "partsz" / "table"
    if not other.exists():
        publish_world(World(parents=3, clusters=6, items=6), folder.parent.parent / "z", other.parent)
    shutil.rmtree(folder / "table")
    shutil.copytree(other, folder / "table")
    from newfound.release.manifest import identity_of

    manifest = json.loads((folder / "manifest.json").read_text())
    for name, record in manifest["files"].items():
        content = (folder / name).read_bytes()
        record.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    manifest["id"] = identity_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    moved = folder.parent / manifest["id"]
    folder.rename(moved)
    (folder.parent / "current").write_text(json.dumps({"release": manifest["id"]}))
    return "table.json"


@pytest.mark.parametrize("spoil", [_truncate, _flip, _remove, _add, _manifest, _mix])
def test_a_spoilt_release_is_refused_by_file_name_while_the_old_one_serves(tmp_path, caplog, spoil):
    root = tmp_path / "releases"
    first, releases = publish(root, tmp_path, "a"), follow(root, tmp_path / "cache")
    releases.look()
    second = publish(root, tmp_path, "b")
    file = spoil(root / second)
    with caplog.at_level(logging.ERROR):
        releases.look()
        releases.look()
    assert releases.active == first and releases.get() is not None
    assert any(file in record.getMessage() for record in caplog.records)
    third = publish(root, tmp_path, "c")
    releases.look()
    assert releases.active == third


def test_what_serves_survives_the_loss_of_its_files(tmp_path):
    root = tmp_path / "releases"
    first, releases = publish(root, tmp_path, "a"), follow(root, tmp_path / "cache")
    releases.look()
    shutil.rmtree(root / first)
    loaded = releases.get()
    assert (
        loaded is not None and loaded.catalogue.popular_items("c1") and len(loaded.catalogue.log_probs([("c1", "c2")]))
    )
    assert loaded.catalogue.clusters.layout.num_rows == 6
    assert not any((tmp_path / "cache").glob("2*")), "the copy is gone as well"


def _unreadable(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def _gone(file: Path) -> None:
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)


SPOILT_LISTS = [
    lambda file: file.write_text("nonsense"),
    lambda file: file.write_text('{"items": "i1.1"}'),
    lambda file: file.write_text(""),
    _unreadable,
    _gone,
]


def test_the_takedown_list_is_followed_while_a_release_is_being_loaded(tmp_path):
    root, cache = tmp_path / "releases", tmp_path / "cache"
    publish(root, tmp_path, "a")
    cache.mkdir()
    loading, loaded = threading.Event(), threading.Event()

    def build(folder: Path, release: str) -> LoadedRelease:
        if root.joinpath("slow").exists():
            loading.set()
            assert loaded.wait(20)
        return build_loaded_release(folder, release, planner=False, remembered=10)

    releases = Releases(str(root), cache, PARTS, build, 0.01)
    releases.start()
    try:
        (root / "slow").touch()
        second = publish(root, tmp_path, "b")
        assert loading.wait(20)
        (root / "takedown.json").write_text(json.dumps({"items": ["i1.1"]}))
        until(lambda: releases.takedown.items == {"i1.1"})
        assert releases.active != second
        loaded.set()
        until(lambda: releases.active == second)
    finally:
        loaded.set()
        releases.stop()


def test_the_takedown_list_is_followed_and_a_broken_one_changes_nothing(tmp_path):
    root = tmp_path / "releases"
    publish(root, tmp_path, "a")
    releases = follow(root, tmp_path / "cache")
    releases.look()
    (root / "takedown.json").write_text(json.dumps({"items": ["i1.1"]}))
    releases.look()
    read = releases.takedown
    for spoil in SPOILT_LISTS:
        failed, age = value("newfound_takedown_failed_total"), value("newfound_takedown_age_seconds")
        spoil(root / "takedown.json")
        time.sleep(0.01)
        releases.look()
        assert releases.takedown is read and read.items == {"i1.1"}
        assert value("newfound_takedown_failed_total") == failed + 1
        assert value("newfound_takedown_age_seconds") >= age + 0.01, "how old the list is that serves"
    available = releases.get().available(releases.takedown)
    assert available.available["c1"] == 5 and available is releases.get().available(releases.takedown)
    (root / "takedown.json").write_text("{}")
    releases.look()
    assert releases.takedown == Takedown() and value("newfound_takedown_age_seconds") < 10


@pytest.mark.parametrize("spoil", SPOILT_LISTS)
def test_nothing_serves_until_a_takedown_list_was_read(tmp_path, spoil):
    root = tmp_path / "releases"
    first = publish(root, tmp_path, "a")
    assert json.loads((root / "takedown.json").read_text()) == {"items": [], "clusters": []}, "the first publication's"
    spoil(root / "takedown.json")
    releases = follow(root, tmp_path / "cache")
    for _ in range(2):
        releases.look()
        assert releases.active == first and releases.get() is None
    _gone(root / "takedown.json")
    (root / "takedown.json").write_text(json.dumps({"items": ["i1.1"]}))
    releases.look()
    assert releases.get() is not None and releases.takedown.items == {"i1.1"}


def test_a_release_that_is_published_later_keeps_the_list(tmp_path):
    root = tmp_path / "releases"
    publish(root, tmp_path, "a")
    (root / "takedown.json").write_text(json.dumps({"items": ["i1.1"]}))
    publish(root, tmp_path, "b")
    assert json.loads((root / "takedown.json").read_text()) == {"items": ["i1.1"]}


@pytest.mark.parametrize("name", ["{path}", "../{name}", ".", "", "20250131T093000-0123456789AB", "..\n"])
def test_what_is_no_release_id_is_refused_and_nothing_is_deleted(tmp_path, name):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(ReleaseError, match="not the id of a release"):
        follow(tmp_path / "releases", tmp_path / "cache", pinned=name.format(path=mine, name="mine"))
    assert (mine / "thesis.txt").read_text() == "years"


def test_a_folder_of_a_releases_name_in_the_cache_is_not_ours_to_remove(tmp_path):
    root, cache = tmp_path / "releases", tmp_path / "cache"
    first, releases = publish(root, tmp_path, "a"), follow(root, cache)
    for name in (first, "downloads"):
        (cache / name).mkdir()
        (cache / name / "kept.txt").write_text("kept")
    releases.look()
    assert releases.active == first
    assert [(cache / name / "kept.txt").read_text() for name in (first, "downloads")] == ["kept", "kept"]


@pytest.mark.parametrize("server", ["explorer", "ranker"])
def test_a_server_says_what_a_release_id_looks_like(tmp_path, server):
    command = [sys.executable, "-m", f"serving.{server}", "--releases", str(tmp_path), "--release", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "not the id of a release" in done.stderr and tmp_path.is_dir()
