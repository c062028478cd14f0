"""Releases on a file system: publishing, rolling back, promoting, downloading into a cache, and the takedown list."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np

from newfound.release import store
from newfound.release.new_items import NewItem, NewItems, add_new_items, read_new_items
from newfound.release.pointer import read_pointer
from newfound.release.storage import Storage
from newfound.release.takedown import Takedown, change_takedown, read_takedown
from tests.durability.scenario import Scenario
from tests.release.gates import HELD

REMOTE = "memory://durability"


def _publish(root: Path, text: str, releases: str | None = None) -> str:
    parts = root.parent / "parts"
    (parts / "ranker").mkdir(parents=True, exist_ok=True)
    (parts / "ranker" / "weights.bin").write_text(text * 300)
    (parts / "items.txt").write_text(text)
    given = {"ranker": parts / "ranker", "items.txt": parts / "items.txt"}
    made = store.publish(
        given, releases or str(root / "releases"), lineage={"text": text}, measures={}, fits={}, gates=HELD
    )
    return made.id


def _two(root: Path) -> None:
    _publish(root, "one")
    _publish(root, "two")


def _serving(root: Path) -> str | None:
    """The text of the release that serves, whole and verified; None where there is none."""
    releases = str(root / "releases")
    if store.current(releases) is None:
        return None
    found = store.load(releases)
    text = str(found.manifest.lineage["text"])
    assert (found.path / "items.txt").read_text() == text
    assert (found.path / "ranker" / "weights.bin").read_text() == text * 300
    assert read_takedown(releases) is not None, "no list"
    return text


def _check_first(root: Path, done: bool) -> None:
    assert _serving(root) in ({"one"} if done else {None, "one"})


def _check_second(root: Path, done: bool) -> None:
    assert _serving(root) in ({"two"} if done else {"one", "two"})


def _check_after_rollback(root: Path, done: bool) -> None:
    text = _serving(root)
    pointer = read_pointer(Storage(str(root / "releases")))
    assert text in ({"one"} if done else {"one", "two"})
    assert pointer is not None and pointer.held == (text == "one")
    _publish(root, "three")
    assert _serving(root) == ("one" if pointer.held else "three"), "a rollback was undone, or a release is stuck"


def _held(root: Path) -> None:
    _two(root)
    store.rollback(str(root / "releases"))
    (root.parent / "third").write_text(_publish(root, "three"))


def _promote(root: Path) -> None:
    store.promote(str(root / "releases"), (root.parent / "third").read_text())


def _check_promoted(root: Path, done: bool) -> None:
    assert _serving(root) in ({"three"} if done else {"one", "three"})


def _listed(root: Path) -> None:
    _publish(root, "one")
    change_takedown(str(root / "releases"), lambda _: Takedown(frozenset({"a"})))


def _take_down(root: Path) -> None:
    change_takedown(str(root / "releases"), lambda old: Takedown(old.items | {"b"}))


def _check_takedown(root: Path, done: bool) -> None:
    found = read_takedown(str(root / "releases")).items
    assert found in ([{"a", "b"}] if done else [{"a"}, {"a", "b"}]), found


def _add(root: Path, item: str) -> None:
    release = store.current(str(root / "releases"))
    assert release is not None
    placed = (NewItem(item=item, title=item, leaf="l0", row="0" * 64),)
    ones = np.ones((1, 2), dtype=np.float32)
    add_new_items(str(root / "releases"), NewItems(release, datetime.now(UTC), placed, ones, ones, ones))


def _added(root: Path) -> None:
    _publish(root, "one")
    _add(root, "a")


def _check_new_items(root: Path, done: bool) -> None:
    releases = str(root / "releases")
    found = read_new_items(releases, store.current(releases) or "")
    assert found is not None and found.ids in ([["a", "b"]] if done else [["a"], ["a", "b"]]), found
    assert _serving(root) == "one", "the release itself is as it was"


def _remote(root: Path) -> None:
    fs, base = fsspec.core.url_to_fs(REMOTE)
    if fs.exists(base):
        fs.rm(base, recursive=True)
    (root.parent / "remote").write_text(json.dumps([_publish(root, text, REMOTE) for text in ("one", "two")]))
    store.load(REMOTE, json.loads((root.parent / "remote").read_text())[0], root / "cache")


def _download(root: Path) -> None:
    store.load(REMOTE, None, root / "cache")


def _check_cache(root: Path, done: bool) -> None:
    for one in json.loads((root.parent / "remote").read_text()):
        found = store.load(REMOTE, one, root / "cache")
        assert (found.path / "items.txt").read_text() == found.manifest.lineage["text"]
    shutil.rmtree(root / "cache")


def _a_day(root: Path) -> None:
    releases = str(root / "releases")
    first = _publish(root, "one")
    second = _publish(root, "two")
    store.rollback(releases)
    change_takedown(releases, lambda old: Takedown(old.items | {"a"}))
    store.promote(releases, second)
    store.promote(releases, first)
    _publish(root, "three")


def _check_a_day(root: Path, done: bool) -> None:
    text = _serving(root)
    assert text == "three" if done else text in (None, "one", "two", "three"), text
    if done:
        assert read_takedown(str(root / "releases")).items == {"a"}
    elif text is not None:
        _publish(root, "four")
        pointer = read_pointer(Storage(str(root / "releases")))
        assert pointer is not None and _serving(root) == (text if pointer.held else "four"), "stuck, or not held"


def _fetch(root: Path) -> None:
    store.fetch(REMOTE, None, root / "engine")


def _check_fetched(root: Path, done: bool) -> None:
    two = json.loads((root.parent / "remote").read_text())[1]
    assert not done or (root / "engine" / two).is_dir()
    found = store.fetch(REMOTE, None, root / "engine")
    assert (found.path / "items.txt").read_text() == "two"


SCENARIOS = [
    Scenario("the first release", lambda root: None, lambda root: _publish(root, "one") and None, _check_first),
    Scenario(
        "the next release", lambda root: _publish(root, "one") and None, lambda root: _publish(root, "two") and None,
        _check_second,
    ),
    Scenario("a rollback", _two, lambda root: store.rollback(str(root / "releases")) and None, _check_after_rollback),
    Scenario("a promotion", _held, _promote, _check_promoted),
    Scenario("the takedown list", _listed, _take_down, _check_takedown),
    Scenario("new items beside a release", _added, lambda root: _add(root, "b"), _check_new_items),
    Scenario("a download into a cache", _remote, _download, _check_cache),
    Scenario("a copy for an engine", _remote, _fetch, _check_fetched),
    Scenario("a day of releases", lambda root: None, _a_day, _check_a_day),
]  # fmt: skip
