"""`newfound.files`: one file, one folder, with and without a file system that exchanges folders, a link, a removal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from newfound import files
from tests.durability.scenario import Scenario

RECORD = "record.json"


def _file(content: str) -> Callable[[Path], None]:
    return lambda root: files.write_text(root / "deep" / "file.txt", content * 1000)


def _check_file(root: Path, done: bool) -> None:
    file = root / "deep" / "file.txt"
    found = file.read_text() if file.exists() else None
    assert found in ({"new" * 1000} if done else {"old" * 1000, "new" * 1000}), found and found[:20]


def _check_first_file(root: Path, done: bool) -> None:
    file = root / "deep" / "file.txt"
    found = file.read_text() if file.exists() else None
    assert found in ({"new" * 1000} if done else {None, "new" * 1000}), found and found[:20]


def _folder(content: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        with files.new_folder(root / "out", RECORD) as folder:
            (folder / "deep").mkdir()
            for name in ("a", f"only-{content}", "deep/b"):
                (folder / name).write_text(content * 500)
            (folder / RECORD).write_text(content)

    return write


def _whole(root: Path, *contents: str) -> str:
    content = (root / "out" / RECORD).read_text()
    assert content in contents, content
    names = {file.relative_to(root / "out").as_posix() for file in (root / "out").rglob("*") if file.is_file()}
    assert names == {"a", f"only-{content}", "deep/b", RECORD}, names
    assert all((root / "out" / name).read_text() == content * 500 for name in names - {RECORD})
    return content


def _check_folder(root: Path, done: bool) -> None:
    _whole(root, *(("new",) if done else ("old", "new")))


def _check_recovered_folder(root: Path, done: bool) -> None:
    files.recover(root / "out")
    _check_folder(root, done)


def _check_first_folder(root: Path, done: bool) -> None:
    if done or (root / "out").exists():
        _whole(root, "new")


def _in_two_renames(root: Path) -> None:
    with patch.object(files, "exchange", lambda one, other: False):
        _folder("new")(root)


def _remove(root: Path) -> None:
    files.remove_folder(root / "out", RECORD)


def _check_removed(root: Path, done: bool) -> None:
    if (root / "out").exists():
        _whole(root, "old")
        assert not done


def _link(target: str) -> Callable[[Path], None]:
    return lambda root: files.link(root / "link", target)


def _check_link(root: Path, done: bool) -> None:
    assert os.readlink(root / "link") in ({"two"} if done else {"one", "two"})


def _nothing(root: Path) -> None:
    pass


SCENARIOS = [
    Scenario("a first file", _nothing, _file("new"), _check_first_file),
    Scenario("a file that is replaced", _file("old"), _file("new"), _check_file),
    Scenario("a first folder", _nothing, _folder("new"), _check_first_folder),
    Scenario("a folder that is exchanged", _folder("old"), _folder("new"), _check_folder),
    Scenario("a folder that is replaced in two renames", _folder("old"), _in_two_renames, _check_recovered_folder),
    Scenario("a folder that is removed", _folder("old"), _remove, _check_removed),
    Scenario("a link that is swapped", _link("one"), _link("two"), _check_link),
]
