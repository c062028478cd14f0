"""The pointer: one line of moves, whoever moves it, and something to fall back to."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from newfound.errors import ReleaseError
from newfound.release import store as release
from newfound.release.pointer import LARGEST, move, read_pointer
from newfound.release.storage import Storage
from tests.release.test_store import _publish


def test_a_pointer_of_the_first_version_is_read(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    made = _publish(tmp_path / "run", str(root)).id
    (root / "current").write_text(json.dumps({"release": made}))
    (root / "current.previous").unlink(missing_ok=True)
    assert release.current(str(root)) == made
    assert _publish(tmp_path / "run", str(root), "two").id == release.current(str(root))


@pytest.mark.parametrize(
    "harm", ["", "{", "null", '{"release": "../etc"}', '{"release": 7}', "x" * (LARGEST + 1), None]
)
def test_a_damaged_pointer_falls_back_to_the_release_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str | None
) -> None:
    root = tmp_path / "releases"
    first, second = (_publish(tmp_path / "run", str(root), text).id for text in ("one", "two"))
    assert release.current(str(root)) == second
    (root / "current").unlink() if harm is None else (root / "current").write_text(harm)
    assert release.load(str(root)).id == first
    assert "falling back to current.previous" in caplog.text
    third = _publish(tmp_path / "run", str(root), "three").id
    assert release.current(str(root)) == third


def test_the_first_release_has_itself_to_fall_back_to(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    made = _publish(tmp_path / "run", str(root)).id
    (root / "current").write_text("")
    assert release.load(str(root)).id == made


def test_both_pointers_damaged_is_an_error_and_no_first_time(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    _publish(tmp_path / "run", str(root), "one")
    _publish(tmp_path / "run", str(root), "two")
    for name in ("current", "current.previous"):
        (root / name).write_text("{")
    with pytest.raises(ReleaseError, match="current: not a pointer"):
        release.current(str(root))
    with pytest.raises(ReleaseError, match="current: not a pointer"):
        _publish(tmp_path / "run", str(root), "three")


def test_after_a_rollback_a_damaged_pointer_does_not_lead_back_to_the_bad_release(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    good, _ = (_publish(tmp_path / "run", str(root), text).id for text in ("good", "bad"))
    release.rollback(str(root))
    (root / "current").write_text("{")
    assert release.current(str(root)) == good
    pointer = read_pointer(Storage(str(root)))
    assert pointer is not None and pointer.held


@pytest.mark.parametrize("remote", [False, True])
def test_a_late_publication_does_not_undo_a_newer_release(tmp_path: Path, remote: bool) -> None:
    root = f"memory://late-{tmp_path.name}" if remote else str(tmp_path / "releases")
    old = _publish(tmp_path / "run", root, "old").id
    new = _publish(tmp_path / "run", root, "new").id
    before = [made.id for made in release.list_releases(root)]
    with pytest.raises(ReleaseError, match=f"points at {new} by now, expected {old}"):
        _publish(tmp_path / "run", root, "late", expect=old)
    assert release.current(root) == new
    assert [made.id for made in release.list_releases(root)] == before, "refused before anything was copied"
    assert _publish(tmp_path / "run", root, "in time", expect=new).id == release.current(root)
    with pytest.raises(ReleaseError, match="expected None"):
        _publish(tmp_path / "run", root, "as the first", expect=None)


@pytest.mark.parametrize("remote", [False, True])
def test_a_release_that_moved_while_files_were_copied_is_not_undone(
    tmp_path: Path, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"memory://race-{tmp_path.name}" if remote else str(tmp_path / "releases")
    _publish(tmp_path / "run", root, "old")
    write = release._write  # type: ignore[attr-defined]
    others: list[str] = []

    def slowly(*args: object) -> None:
        write(*args)
        if not others:
            others.append("")
            others[0] = _publish(tmp_path / "other", root, "other").id

    monkeypatch.setattr(release, "_write", slowly)
    with pytest.raises(ReleaseError, match="left as it is"):
        _publish(tmp_path / "run", root, "slow")
    assert release.current(root) == others[0]
    assert len(release.list_releases(root)) == 3, "what was copied stays, and can be promoted"


@pytest.mark.parametrize("remote", [False, True])
def test_a_rollback_holds_until_somebody_promotes(tmp_path: Path, remote: bool) -> None:
    root = f"memory://held-{tmp_path.name}" if remote else str(tmp_path / "releases")
    good = _publish(tmp_path / "run", root, "good").id
    _publish(tmp_path / "run", root, "bad")
    cache = tmp_path / "cache"
    assert release.rollback(root, cache=cache).id == good
    late = _publish(tmp_path / "run", root, "a late refresh").id
    assert release.current(root) == good, "it is published, and does not serve"
    with pytest.raises(ReleaseError, match=f"held at {good}"):
        release.promote(root, late, cache, even_if_held=False)
    assert release.promote(root, late, cache).id == late == release.current(root)
    assert _publish(tmp_path / "run", root, "next").id == release.current(root)


def test_of_many_moves_at_once_one_wins_and_the_rest_are_told(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    ids = [_publish(tmp_path / "run", root, f"{n}", promote=n == 0).id for n in range(9)]
    store, won, lost = Storage(root), [], []

    def try_it(one: str) -> None:
        try:
            won.append(move(store, one, ids[0]).release)
        except ReleaseError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=try_it, args=(one,)) for one in ids[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [release.current(root)] == won and len(lost) == 7
    pointer = read_pointer(store)
    assert pointer is not None and (pointer.parent, pointer.move) == (ids[0], 2)
