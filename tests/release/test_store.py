"""Releases: whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from newfound.errors import ReleaseError
from newfound.release import store as release
from newfound.release.takedown import Takedown, read_takedown
from tests.release.gates import HELD


def _parts(folder: Path, text: str = "one", made_for: str = "a" * 64) -> dict[str, Path]:
    for name, record in {
        "clusters/clusters.json": {"digest": "a" * 64},
        "table/table.json": {"clusters_digest": made_for},
        "ranker/ranker.json": {"clusters_digest": "a" * 64},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record))
    (folder / "items.parquet").write_text(text)
    return {name: folder / name for name in ("clusters", "table", "ranker", "items.parquet")}


def _publish(folder: Path, root: str, text: str = "one", **kwargs: Any) -> release.Manifest:
    return release.publish(
        _parts(folder, text),
        root,
        lineage={"seed": 7, "text": text},
        measures={"planner.match_rate": 1.0},
        fits={"measures": "past", "files": "all data"},
        gates=HELD,
        **kwargs,
    )


def test_what_is_published_is_current_and_verifies(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    made = _publish(tmp_path / "run", root)
    assert release.current(root) == made.id
    loaded = release.load(root)
    assert loaded.manifest == made
    assert (loaded.path / "items.parquet").read_text() == "one"
    assert [m.id for m in release.list_releases(root)] == [made.id]


def test_no_release_is_said_plainly(tmp_path: Path) -> None:
    root = str(tmp_path / "nothing")
    assert release.current(root) is None
    assert release.list_releases(root) == []
    with pytest.raises(ReleaseError, match="no release was published yet"):
        release.load(root)


def test_a_failed_gate_publishes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    gates = {"planner.match_rate": {"value": 0.2, "bound": 0.9, "passed": False}}
    with pytest.raises(ReleaseError, match="planner.match_rate"):
        release.publish(_parts(tmp_path / "run"), str(root), lineage={}, measures={}, fits={}, gates=gates)
    assert not root.exists()


def test_parts_that_were_not_made_together_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    parts = _parts(tmp_path / "run", made_for="b" * 64)
    with pytest.raises(ReleaseError, match=r"table/table.json: made for clusters bbb"):
        release.publish(parts, str(root), lineage={}, measures={}, fits={}, gates=HELD)
    assert not root.exists()


@pytest.mark.parametrize(
    "gates",
    [
        {},
        {"match_rate": {"value": 0.2, "bound": 0.9, "passed": True}},
        {"match_rate": {"value": float("nan"), "bound": 0.9, "passed": True}},
        {"match_rate": {"value": float("inf"), "bound": 0.9, "passed": True}},
        {"match_rate": {"value": 1.0, "bound": 0.9, "passed": 1}},
        {"match_rate": {"passed": True}},
    ],
)
def test_nothing_is_published_that_was_not_judged(tmp_path: Path, gates: dict[str, Any]) -> None:
    root = tmp_path / "releases"
    with pytest.raises(ReleaseError, match="not published"):
        release.publish(_parts(tmp_path / "run"), str(root), lineage={}, measures={}, fits={}, gates=gates)
    assert not root.exists()


def test_a_measure_that_is_no_number_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    root, measures = tmp_path / "releases", {"planner.mrr": float("nan")}
    with pytest.raises(ReleaseError, match="cannot be written"):
        release.publish(_parts(tmp_path / "run"), str(root), lineage={}, measures=measures, fits={}, gates=HELD)
    assert release.list_releases(str(root)) == [] and release.current(str(root)) is None


def _corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: _corrupt(folder / "items.parquet"), "items.parquet: its sha256"),
        (lambda folder: (folder / "items.parquet").write_text("o"), "items.parquet: 1 bytes"),
        (lambda folder: (folder / "table" / "table.json").unlink(), "table.json: missing"),
        (lambda folder: (folder / "extra.bin").write_text("x"), "extra.bin: not named"),
        (lambda folder: _corrupt(folder / "manifest.json"), "manifest.json: not JSON"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"seed": 7', '"seed": 8')
            ),
            "manifest.json: its content was changed",
        ),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"schema_version": 1', '"schema_version": 99')
            ),
            "schema version 99",
        ),
    ],
)
def test_harm_is_found_and_the_file_is_named(tmp_path: Path, harm: Callable[[Path], Any], said: str) -> None:
    root = str(tmp_path / "releases")
    made = _publish(tmp_path / "run", root)
    harm(Path(root) / made.id)
    with pytest.raises(ReleaseError, match=said):
        release.load(root)


def test_rollback_goes_to_the_release_before_and_only_to_a_sound_one(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    first = _publish(tmp_path / "run", root, "one")
    second = _publish(tmp_path / "run", root, "two")
    order = [m.id for m in release.list_releases(root)]
    assert order == [first.id, second.id]
    assert release.rollback(root).id == order[0]
    assert release.current(root) == order[0]
    with pytest.raises(ReleaseError, match="no earlier release"):
        release.rollback(root)
    _corrupt(Path(root) / order[1] / "items.parquet")
    with pytest.raises(ReleaseError, match="sha256"):
        release.rollback(root, order[1])
    assert release.current(root) == order[0]


def test_an_unknown_or_hostile_id_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    _publish(tmp_path / "run", root)
    with pytest.raises(ReleaseError, match="not the id of a release"):
        release.load(root, "../../etc")
    with pytest.raises(ReleaseError, match="there is no release"):
        release.load(root, "20200101T000000-000000000000")


def test_a_remote_release_is_copied_once_and_verified(tmp_path: Path) -> None:
    root = f"memory://releases-{tmp_path.name}"
    made = _publish(tmp_path / "run", root)
    cache = tmp_path / "cache"
    loaded = release.load(root, cache=cache)
    assert loaded.path == cache / made.id
    assert (loaded.path / "items.parquet").read_text() == "one"
    fs, base = fsspec.core.url_to_fs(root)
    other = _publish(tmp_path / "run", root, "two")
    fs.pipe_file(f"{base}/{other.id}/items.parquet", b"twO")
    with pytest.raises(ReleaseError, match=r"items.parquet: its sha256"):
        release.load(root, other.id, cache=cache)
    assert sorted(path.name for path in cache.iterdir()) == [made.id]
    assert release.load(root, made.id, cache=cache).id == made.id


def test_only_the_parts_that_are_needed_are_copied_from_afar(tmp_path: Path) -> None:
    root = f"memory://parts-{tmp_path.name}"
    made = _publish(tmp_path / "run", root)
    loaded = release.load(root, cache=tmp_path / "cache", parts=["ranker"])
    there = {file.relative_to(loaded.path).as_posix() for file in loaded.path.rglob("*") if file.is_file()}
    assert there == {"manifest.json", "ranker/ranker.json"}
    whole = release.load(root, cache=tmp_path / "cache")
    assert whole.path == tmp_path / "cache" / made.id and (whole.path / "items.parquet").is_file()
    fs, base = fsspec.core.url_to_fs(root)
    other = _publish(tmp_path / "run", root, "two")
    fs.pipe_file(f"{base}/{other.id}/ranker/ranker.json", b"{}")
    with pytest.raises(ReleaseError, match="ranker.json"):
        release.load(root, other.id, tmp_path / "cache", ["ranker"])
    fs.pipe_file(f"{base}/{other.id}/manifest.json", b"{}")
    with pytest.raises(ReleaseError, match="manifest.json"):
        release.load(root, other.id, tmp_path / "cache", ["table"])


@pytest.mark.parametrize("remote", [False, True])
def test_a_fetched_release_is_a_verified_copy_by_its_id(tmp_path: Path, remote: bool) -> None:
    root = f"memory://fetch-{tmp_path.name}" if remote else str(tmp_path / "releases")
    made = _publish(tmp_path / "run", root)
    for _ in range(2):  # a container that starts again finds what it fetched
        fetched = release.fetch(root, made.id, tmp_path / "here")
        assert fetched.path == tmp_path / "here" / made.id
        assert (fetched.path / "ranker" / "ranker.json").is_file()
    assert [path.name for path in (tmp_path / "here").iterdir()] == [made.id]
    fs, base = fsspec.core.url_to_fs(root)
    fs.pipe_file(f"{base}/{made.id}/items.parquet", b"onE")
    with pytest.raises(ReleaseError, match=r"items.parquet: its sha256"):
        release.fetch(root, None, tmp_path / "there")


class _Dead(BaseException):
    """The client of an object store is gone."""


class _Mortal(MemoryFileSystem):  # type: ignore[misc]
    """An object store whose client dies before its n-th write; what it had written by then is there."""

    protocol = ("mortal", "memory")
    lives = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("mortal://", "memory://")))

    def _die_at_zero(self) -> None:
        if type(self).lives == 0:
            raise _Dead
        type(self).lives -= 1

    def put_file(self, lpath: str, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        self._die_at_zero()
        super().put_file(lpath, rpath, **kwargs)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._die_at_zero()
        super().pipe_file(path, value, mode=mode, **kwargs)


def test_dead_before_any_write_the_old_release_still_loads(tmp_path: Path) -> None:
    fsspec.register_implementation("mortal", _Mortal, clobber=True)
    root = f"memory://mortal-{tmp_path.name}"
    old = _publish(tmp_path / "run", root)
    for deaths in range(100):
        _Mortal.lives = deaths
        try:
            _publish(tmp_path / "run", f"mortal://mortal-{tmp_path.name}", f"text {deaths}")
            break
        except _Dead:
            found = release.load(root, cache=tmp_path / "cache")
            assert found.manifest == old, f"after a death at write {deaths}"
            assert read_takedown(root) == Takedown()
    # four files, the manifest, the pointer before and the pointer
    assert deaths == 7
    assert release.load(root, cache=tmp_path / "cache").manifest.lineage["text"] == f"text {deaths}"


def test_dead_before_any_write_of_the_first_release_there_is_none_or_all_of_it(tmp_path: Path) -> None:
    fsspec.register_implementation("mortal", _Mortal, clobber=True)
    for deaths in range(100):
        root = f"mortal-first-{tmp_path.name}-{deaths}"
        _Mortal.lives = deaths
        try:
            made = _publish(tmp_path / "run", f"mortal://{root}")
            break
        except _Dead:
            if release.current(f"memory://{root}") is not None:
                assert deaths == 7
                assert release.load(f"memory://{root}", cache=tmp_path / "cache")
    # the takedown list, four files, the manifest, what to fall back to, and the pointer
    assert deaths == 8
    assert release.load(f"memory://{root}", cache=tmp_path / "cache").id == made.id
    assert read_takedown(f"memory://{root}") == Takedown()


def _with_planner(folder: Path, root: str, planner: str, ranker: str) -> release.Manifest:
    (folder / "planner" / "inner").mkdir(parents=True)
    for name, text in (("planner/model", planner), ("planner/inner/prompt", "p"), ("ranker", ranker)):
        (folder / name).write_text(text)
    parts = {name: folder / name for name in ("planner", "ranker")}
    return release.publish(parts, root, lineage={}, measures={}, fits={}, gates=HELD)


def test_a_planners_name_is_what_its_files_are(tmp_path: Path) -> None:
    """The sha256 of what `sha256sum` prints of them: anybody can work it out."""
    root = str(tmp_path / "releases")
    first, refreshed, trained = (
        _with_planner(tmp_path / name, root, *parts)
        for name, parts in {"1": ("a", "x"), "2": ("a", "y"), "3": ("b", "y")}.items()
    )
    assert first.planner_name == refreshed.planner_name != trained.planner_name
    command = "find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16"
    planner = tmp_path / "releases" / first.id / "planner"
    printed = subprocess.run(["sh", "-c", command], cwd=planner, capture_output=True, text=True, check=True).stdout
    assert first.planner_name == printed.strip()
    assert _publish(tmp_path / "run", root).planner_name is None


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_planner_is_fetched_out_of_whichever_release_has_it(tmp_path: Path, kind: str) -> None:
    root = str(tmp_path / "releases") if kind == "folder" else f"memory://{tmp_path.name}/releases"
    first = _with_planner(tmp_path / "1", root, "a", "x")
    name = str(first.planner_name)
    _with_planner(tmp_path / "2", root, "b", "y")
    fetched = release.fetch_planner(root, name, tmp_path / "here")
    assert (fetched.id, fetched.path) == (first.id, tmp_path / "here" / name)
    assert (fetched.path / "planner" / "model").read_text() == "a" and not (fetched.path / "ranker").exists()
    _with_planner(tmp_path / "3", root, "a", "z")
    release.fetch_planner(root, name, tmp_path / "here")  # a container that is started again
    (fetched.path / "planner" / "model").write_text("c")
    with pytest.raises(ReleaseError, match="sha256 differs"):
        release.fetch_planner(root, name, tmp_path / "here")
    with pytest.raises(ReleaseError, match="no release has the planner 0000000000000000"):
        release.fetch_planner(root, "0" * 16, tmp_path / "here")
