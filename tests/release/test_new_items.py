"""New items beside a release: whole or not there, of one release alone, bounded, signed where releases are."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from newfound.errors import ReleaseError
from newfound.release import new_items, signature
from newfound.release import store as release
from newfound.release.new_items import (
    NewItem,
    NewItems,
    add_new_items,
    file_of,
    find_new_items,
    new_items_version,
    parse_new_items,
    read_new_items,
)
from newfound.release.signature import PRIVATE_KEY, PUBLIC_KEYS
from newfound.release.storage import Storage
from tests.release.test_signature import _keys
from tests.release.test_store import _publish

ID = "20250131T093000-0123456789ab"
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def made_up(*ids: str, release_id: str = ID, at: datetime = AT, title: str = "Title of ") -> NewItems:
    """New items whose vectors tell them apart."""
    items = tuple(NewItem(item=one, title=f"{title}{one}", leaf="l0", row="0" * 64) for one in ids)
    numbers = np.array([[len(one), ord(one[-1])] for one in ids], dtype=np.float32).reshape(len(ids), 2)
    return NewItems(release_id, at, items, numbers, numbers + 1, numbers[:, :1])


def same(one: NewItems | None, other: NewItems) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in new_items.ARRAYS)
    return one is not None and (one.release, one.made, one.items) == (other.release, other.made, other.items) and arrays


@pytest.mark.parametrize("remote", [False, True])
def test_what_is_added_is_read_back_and_added_to(tmp_path: Path, remote: bool) -> None:
    root = f"memory://new-items-{tmp_path.name}" if remote else str(tmp_path / "releases")
    assert read_new_items(root, ID) is None and new_items_version(root, ID) is None
    first = made_up("a", "b")
    assert same(add_new_items(root, first), first) and same(read_new_items(root, ID), first)
    version = new_items_version(root, ID)
    assert version is not None and version == new_items_version(root, ID)

    later = made_up("b", "c", at=AT + timedelta(minutes=5), title="Again ")
    whole = add_new_items(root, later)
    assert whole.ids == ["a", "b", "c"] and whole.made == later.made
    assert [one.title for one in whole.items] == ["Title of a", "Again b", "Again c"]
    assert whole.vectors.tolist() == [[1, 97], [1, 98], [1, 99]]
    assert same(read_new_items(root, ID), whole) and new_items_version(root, ID) != version
    assert same(add_new_items(root, made_up("d"), replace=True), made_up("d"))


def test_they_belong_to_one_release_and_are_no_release(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    one, two = (_publish(tmp_path / "run", root, text).id for text in ("one", "two"))
    add_new_items(root, made_up("a", release_id=two))
    assert read_new_items(root, one) is None
    assert [made.id for made in release.list_releases(root)] == [one, two]
    assert release.verify(root, two).id == two, "the release itself is as it was"
    (tmp_path / "releases" / file_of(one)).write_bytes((tmp_path / "releases" / file_of(two)).read_bytes())
    with pytest.raises(ReleaseError, match=f"belongs to release '{two}'; expected {one}"):
        read_new_items(root, one)
    with pytest.raises(ReleaseError, match="not the id of a release"):
        read_new_items(root, "../elsewhere")


def test_several_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "releases")
    threads = [threading.Thread(target=add_new_items, args=(root, made_up(f"i{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_new_items(root, ID)
    assert found is not None and sorted(found.ids) == [f"i{n}" for n in range(8)]


def test_too_many_are_refused_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path / "releases")
    monkeypatch.setattr(new_items, "MOST", 3)
    add_new_items(root, made_up("a", "b"))
    with pytest.raises(ReleaseError, match=rf"{ID}\.items: would hold 4 new items; at most 3"):
        add_new_items(root, made_up("c", "d"))
    monkeypatch.setattr(new_items, "LARGEST", 1500)
    with pytest.raises(ReleaseError, match="bytes; at most 1500"):
        add_new_items(root, made_up("c", title="t" * 2000))
    assert same(read_new_items(root, ID), made_up("a", "b"))


def _written(tmp_path: Path) -> bytes:
    add_new_items(str(tmp_path), made_up("a", "b"))
    return (tmp_path / file_of(ID)).read_bytes()


def _with(content: bytes, payload: bytes | None = None, **record: object) -> bytes:
    """The file with another record, which vouches for its arrays."""
    head, _, rest = content.partition(b"\n")
    payload = rest.partition(b"\n")[2] if payload is None else payload
    told = {**json.loads(head), "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), **record}
    return json.dumps(told).encode() + b"\n\n" + payload


def _arrays(**changed: np.ndarray) -> bytes:
    arrays = {"vectors": np.ones((2, 2)), "counts": np.ones((2, 2)), "text": np.ones((2, 1))}
    return save({name: array.astype(np.float32) for name, array in arrays.items()} | changed)


def test_whatever_is_damaged_is_refused_by_name(tmp_path: Path) -> None:
    good = _written(tmp_path)
    assert parse_new_items(_with(good), "f", ID).ids == ["a", "b"]
    one = json.loads(good.partition(b"\n")[0])["items"][0]
    few, odd = np.ones((1, 2), dtype=np.float32), np.full((2, 2), np.nan, dtype=np.float32)
    harms = [
        (b"", "no record"),
        (b"{\n\n", "no record"),
        (b"[" * 100_000 + b"\n\n", "no record"),
        (_with(good, format=2), "format 2"),
        (_with(good, items=[one, one]), "names an item twice"),
        (_with(good, items=[{**one, "user_id": "u1"}]), "user_id"),
        (_with(good, items=[{**one, "title": ""}]), "title"),
        (_with(good, items=[{**one, "item": "i" * 257}]), "at most 256"),
        (_with(good, made="2026-01-31T09:30:00"), "no time zone"),
        (_with(good, made="yesterday"), "made"),
        (good[:-1], "not those of its record"),
        (good[:-3] + bytes([good[-3] ^ 1]) + good[-2:], "not those of its record"),
        (_with(good, b"garbage"), "arrays cannot be read"),
        (_with(good, _arrays(vectors=odd)), "vectors are not finite"),
        (_with(good, _arrays(counts=few)), "counts are not finite"),
        (_with(good, _arrays(text=np.ones(2, dtype=np.float32))), "text are not finite"),
        (_with(good, _arrays(vectors=np.ones((2, 2)))), "vectors are not finite float32"),
    ]
    for harm, said in harms:
        with pytest.raises(ReleaseError, match=rf"^{ID}\.items: .*{said}"):
            parse_new_items(harm, f"{ID}.items", ID)
        (tmp_path / file_of(ID)).write_bytes(harm)
        assert find_new_items(str(tmp_path), ID) is None
        with pytest.raises(ReleaseError):
            add_new_items(str(tmp_path), made_up("c"))
        assert (tmp_path / file_of(ID)).read_bytes() == harm, "nobody writes over it unasked"
    assert same(add_new_items(str(tmp_path), made_up("c"), replace=True), made_up("c"))


def test_they_are_signed_where_releases_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = _keys(tmp_path, "ours")
    root, file = str(tmp_path), tmp_path / file_of(ID)
    add_new_items(root, made_up("a"))
    unsigned = file.read_bytes()
    monkeypatch.setenv(PUBLIC_KEYS, public)
    with pytest.raises(ReleaseError, match=rf"{ID}\.items: not signed"):
        read_new_items(root, ID)
    monkeypatch.setenv(PRIVATE_KEY, private)
    assert same(add_new_items(root, made_up("a"), replace=True), made_up("a"))
    assert same(read_new_items(root, ID), made_up("a"))
    head, signed, payload = file.read_bytes().split(b"\n", 2)
    theirs = _with(unsigned, items=json.loads(head)["items"], made="2027-01-31T09:30:00+00:00")
    for_another_purpose = signature.sign(head, signature.MANIFESTS) or b""
    for forged in (
        b"\n".join([theirs.split(b"\n", 2)[0], signed, payload]),
        b"\n".join([head, for_another_purpose.strip(), payload]),
    ):
        file.write_bytes(forged)
        with pytest.raises(ReleaseError, match="none of the keys"):
            read_new_items(root, ID)
    assert Storage(root).version_of(file_of(ID)) is not None
