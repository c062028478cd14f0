"""The takedown list: from the first publication on it is there, and what cannot be read is no empty list."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from newfound.errors import ReleaseError
from newfound.release.storage import Storage
from newfound.release.takedown import Takedown, change_takedown, read_takedown, start_takedown
from tests.release.test_store import _publish


@pytest.mark.parametrize("remote", [False, True])
def test_the_first_publication_writes_an_empty_list_and_no_later_one_does(tmp_path: Path, remote: bool) -> None:
    root = f"memory://takedown-{tmp_path.name}" if remote else str(tmp_path / "releases")
    with pytest.raises(ReleaseError, match="nobody knows what was taken down"):
        read_takedown(root)
    _publish(tmp_path / "run", root)
    assert read_takedown(root) == Takedown()
    change_takedown(root, lambda old: Takedown(old.items | {"a"}))
    _publish(tmp_path / "run", root, "two")
    assert read_takedown(root) == Takedown(frozenset({"a"}))
    store = Storage(root)
    store.fs.rm_file(store.name_of("takedown.json"))
    _publish(tmp_path / "run", root, "three")
    with pytest.raises(ReleaseError, match="nobody knows what was taken down"):
        read_takedown(root)
    assert start_takedown(store) and not start_takedown(store)
    assert read_takedown(root) == Takedown()


@pytest.mark.parametrize(
    "harm", ["", "[]", "{", '{"items": "a"}', '{"other": []}', '{"items": [1]}', "[" * 100_000, '{"items": null}']
)
def test_a_malformed_list_is_an_error_and_is_not_written_over(tmp_path: Path, harm: str) -> None:
    root = tmp_path / "releases"
    _publish(tmp_path / "run", str(root))
    (root / "takedown.json").write_text(harm)
    with pytest.raises(ReleaseError, match=r"takedown\.json: "):
        read_takedown(str(root))
    with pytest.raises(ReleaseError, match=r"takedown\.json: "):
        change_takedown(str(root), lambda old: old)
    assert (root / "takedown.json").read_text() == harm


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    start_takedown(Storage(root))

    def add(item: str) -> None:
        change_takedown(root, lambda old: Takedown(old.items | {item}, old.clusters))

    threads = [threading.Thread(target=add, args=(f"i{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_takedown(root).items == {f"i{n}" for n in range(8)}


def test_ids_that_are_no_unicode_survive(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    _publish(tmp_path / "run", str(root))
    (root / "takedown.json").write_text('{"items": ["\\ud800"]}')
    assert change_takedown(str(root), lambda old: old) == read_takedown(str(root)) == Takedown(frozenset({"\ud800"}))
