"""Files and folders appear whole or not at all, whoever is killed, and nobody else's are touched."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from newfound import files
from newfound.errors import OutputError

RECORD = "record.json"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fill(folder: Path, content: str, parts: int = 3) -> None:
    for part in range(parts):
        (folder / f"part-{part}").write_text(content * 1000)
    (folder / RECORD).write_text(content)


@pytest.fixture(params=["exchange", "two renames"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without a file system that exchanges two folders in one step."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    return str(request.param)


def test_a_file_takes_its_place_when_its_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "a.txt"
    with files.new_file(out) as part:
        part.write_text("new")
        assert not out.exists()
    assert out.read_text() == "new"
    assert _names(out.parent) == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    files.write_text(out, "old")
    with pytest.raises(RuntimeError), files.new_file(out) as part:
        part.write_text("half")
        raise RuntimeError
    assert out.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    files.write_text(out, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_text(out, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert out.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    out = tmp_path / "key"
    with files.new_file(out, mode=0o600) as part:
        assert part.stat().st_mode & 0o777 == 0o600
        part.write_text("secret")
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    real, linked = tmp_path / "there" / "a.txt", tmp_path / "a.txt"
    files.write_text(real, "old")
    linked.symlink_to(real)
    files.write_text(linked, "new")
    assert linked.is_symlink() and real.read_text() == "new"


def test_json_with_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert _names(tmp_path) == []


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path, renames: str) -> None:
    out = tmp_path / "out"
    for content in ("old", "new"):
        with files.new_folder(out, RECORD) as folder:
            _fill(folder, content)
    assert (out / RECORD).read_text() == "new"
    assert _names(tmp_path) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_is_called_like_what_is_moved_aside(tmp_path: Path, renames: str) -> None:
    for name in ("old", "out.old"):
        for content in ("old", "new"):
            with files.new_folder(tmp_path / name, RECORD) as folder:
                _fill(folder, content)
        assert (tmp_path / name / RECORD).read_text() == "new"


def test_a_folder_without_its_record_is_no_folder_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made without its record"), files.new_folder(tmp_path / "out", RECORD):
        pass
    assert _names(tmp_path) == []


def test_a_persons_folder_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter-1.txt").write_text("years of work")
    with pytest.raises(OutputError, match="thesis: holds files"), files.new_folder(out, RECORD):
        raise AssertionError("refused before anything is computed")
    with pytest.raises(OutputError, match="thesis: holds files"):
        files.remove_folder(out, RECORD)
    assert _names(out) == ["chapter-1.txt"]
    assert _names(tmp_path) == ["thesis"]


def test_a_person_who_puts_files_there_meanwhile_keeps_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError), files.new_folder(out, RECORD) as folder:
        _fill(folder, "new")
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    assert _names(out) == ["mine.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with files.new_folder(out, RECORD) as folder:
        _fill(folder, "new")
    assert (out / RECORD).read_text() == "new"


def test_a_folder_of_ours_is_removed_and_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files.remove_folder(out, RECORD)
    with files.new_folder(out, RECORD) as folder:
        _fill(folder, "old")
    files.remove_folder(out, RECORD)
    assert _names(tmp_path) == []


def test_a_link_is_swapped_and_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        files.link(tmp_path / "current", target)
        assert os.readlink(tmp_path / "current") == target
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="no symbolic link"):
        files.link(tmp_path / "file", "one")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_looks_like_a_work_folder_but_is_none_stays(tmp_path: Path) -> None:
    mine = tmp_path / ".a.txt.notes.part"
    mine.mkdir()
    files.write_text(tmp_path / "a.txt", "new")
    assert mine.is_dir()


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with files.new_file(out) as first:
        first.write_text("first")
        files.write_text(out, "second")
        assert first.read_text() == "first"
    assert out.read_text() == "first"
    assert _names(tmp_path) == ["a.txt"]


def _killed_at_some_moment(action: Callable[[], None], longest: float, draw: random.Random) -> None:
    child = os.fork()
    if child == 0:
        try:
            while True:
                action()
        finally:
            os._exit(1)
    time.sleep(draw.random() * longest)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_folder_of_a_killed_writer_is_the_old_or_the_new(tmp_path: Path, renames: str) -> None:
    out, draw = tmp_path / "out", random.Random(0)

    def write(content: str) -> None:
        with files.new_folder(out, RECORD) as folder:
            _fill(folder, content)

    write("0")
    for turn in range(1, 10):
        _killed_at_some_moment(lambda content=str(turn % 10): write(content), 0.06, draw)  # type: ignore[misc]
        files.recover(out)
        content = (out / RECORD).read_text()
        assert _names(out) == ["part-0", "part-1", "part-2", RECORD]
        assert all((out / f"part-{part}").read_text() == content * 1000 for part in range(3))
        assert _names(tmp_path) == ["out"]


def test_with_an_exchange_a_reader_needs_no_recovery(tmp_path: Path) -> None:
    out, draw = tmp_path / "out", random.Random(1)

    def write() -> None:
        with files.new_folder(out, RECORD) as folder:
            _fill(folder, "x")

    write()
    for _ in range(6):
        _killed_at_some_moment(write, 0.06, draw)
        assert (out / RECORD).read_text() == "x"


def test_a_failed_second_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    out = tmp_path / "out"
    with files.new_folder(out, RECORD) as folder:
        _fill(folder, "old")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == out and not str(source).endswith(".old"):
            if out.exists():
                return rename(source, target)
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space left"), files.new_folder(out, RECORD) as folder:
        _fill(folder, "new")
    assert (out / RECORD).read_text() == "old"
    assert _names(tmp_path) == ["out"]
