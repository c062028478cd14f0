"""Batches on disk: shared, bounded, whole; nothing that is not a batch is touched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.explorer.spool import Spool

LIMIT = 1000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    one = Spool(tmp_path / "spool", LIMIT)
    one.open()
    return one


def ids(spool: Spool) -> list[str]:
    return [json.loads(event)["id"] for file in spool.files() for event in spool.read(file) or ()]


def event(name: object, size: int = 0) -> bytes:
    return json.dumps({"id": str(name), "data": "x" * size}).encode()


def test_two_processes_add_to_one_folder_and_overwrite_nothing(tmp_path):
    code = (
        "import sys, pathlib, json; from serving.explorer.spool import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), 10**6); spool.open()\n"
        "[spool.put([json.dumps({'id': f'{sys.argv[2]}{at}'}).encode()]) for at in range(40)]"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in started] == [0, 0]
    whole = Spool(tmp_path, 10**6)
    assert sorted(ids(whole)) == sorted(f"{name}{at}" for name in "ab" for at in range(40))
    assert [one for one in ids(whole) if one.startswith("a")] == [f"a{at}" for at in range(40)], "in order"


def test_strangers_are_left_alone(spool):
    for name in ("notes.txt", "letters.json", "1.json", "00000000000000000001-1-x.json"):
        (spool.folder / name).write_text("not ours")
    (spool.folder / "refused").mkdir()
    spool.put([event(1)])
    spool.open()
    assert ids(spool) == ["1"] and len(list(spool.folder.iterdir())) == 6


def test_batches_of_an_earlier_version_come_first(spool):
    spool.put([event("new")])
    (spool.folder / "000000000007.json").write_bytes(b"[" + event("old") + b"]")
    assert ids(spool) == ["old", "new"]


def test_the_oldest_go_where_there_is_no_room_and_are_counted(spool):
    assert spool.put([event(1, 200), event(2, 200)]) == 0 == spool.put([event(3, 200)])
    assert spool.put([event(4, 400)]) == 2
    assert ids(spool) == ["3", "4"] and spool.put([event(5, 2000)]) == 1 and ids(spool) == ["3", "4"]
    assert sum(file.stat().st_size for file in spool.files()) == spool.bytes <= LIMIT


def test_a_file_that_another_process_has_sent_is_no_fault(spool):
    spool.put([event(1)])
    (file,) = spool.files()
    file.unlink()
    assert spool.read(file) is None
    spool.remove(file)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_refuses_leaves_nothing_half_written(spool, monkeypatch, call, code):
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(OSError, match=os.strerror(code)):
            spool.put([event(1)])
    spool.open()
    assert list(spool.folder.iterdir()) == [] and spool.put([event(2)]) == 0 and ids(spool) == ["2"]


def test_what_a_killed_writer_left_is_removed(spool):
    name = f".{1:020d}-1-{'0' * 16}.json.{'a' * 16}.part"
    (spool.folder / name).mkdir()
    (spool.folder / name / f"{1:020d}-1-{'0' * 16}.json").write_text('[{"id": "half')
    spool.open()
    assert list(spool.folder.iterdir()) == []
