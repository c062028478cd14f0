"""New items: what appeared after a release was made, each with its place in it, in one small file beside the release.

`<root>/<id>.items` belongs to the one release whose id it bears: a rollback brings the older release's own new items,
or none, and the next full release learns of them in training. Its first line is a record in JSON with the size and
sha256 of what follows, its second line the record's signature (empty where no key signs), and the rest are arrays in
safetensors' format. Whoever adds items swaps the whole file, so that readers find the old or the new one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import numpy as np
from pydantic import AfterValidator, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as dump_arrays

from newfound.clusters import Clusters
from newfound.errors import ReleaseError
from newfound.release.manifest import check_id
from newfound.release.signature import NEW_ITEMS, check_signature, sign
from newfound.release.storage import Storage
from newfound.settings import Settings
from newfound.types import Floats, Id

log: Final = logging.getLogger("newfound.release")

FORMAT: Final = 1
MOST: Final = 10_000  # items beside a release; more are a reason for a release of their own
LARGEST: Final = 64 << 20  # bytes
ARRAYS: Final = ("vectors", "counts", "text")
_TRIES: Final = 10


class NewItem(Settings):
    """One item.

    Attributes:
        item: its id.
        title: what is shown.
        leaf: the leaf of the release's clusters that it lies in.
        twin: a near-duplicate of it, of the release or among the new items; None where it has none.
        row: sha256 of what was known of it when it was placed.
    """

    item: Id
    title: Annotated[str, Field(min_length=1)]
    leaf: Annotated[str, Field(min_length=1)]
    twin: Id | None = None
    row: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _check_time(made: str) -> str:
    if datetime.fromisoformat(made).tzinfo is None:
        raise ValueError(f"{made!r} has no time zone; expected a time in UTC")
    return made


class _Record(Settings):
    format: int
    release: str
    made: Annotated[str, Field(max_length=64), AfterValidator(_check_time)]
    items: Annotated[list[NewItem], Field(max_length=MOST)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class NewItems:
    """The new items of a release.

    Attributes:
        release: the release that they are placed in.
        made: when they were added, the latest of them; UTC.
        items: id, title and leaf of each.
        vectors: the ranker's, float32 [items, dim], of unit length.
        counts: the decision's counts, float32 [items, terms].
        text: the decision's text vectors, float32 [items, dim]; unit length, or zero for an item without text.
    """

    release: str
    made: datetime
    items: tuple[NewItem, ...]
    vectors: Floats
    counts: Floats
    text: Floats

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """The items' ids, in order."""
        return [one.item for one in self.items]

    def with_others(self, others: NewItems) -> NewItems:
        """These and others of the same release; of an item that both have, these."""
        mine = set(self.ids)
        kept = np.array([at for at, item in enumerate(others.ids) if item not in mine], dtype=np.int64)
        arrays = (np.concatenate([getattr(others, name)[kept], getattr(self, name)]) for name in ARRAYS)
        items = (*(others.items[at] for at in kept.tolist()), *self.items)
        return NewItems(self.release, max(self.made, others.made), items, *arrays)


def file_of(release_id: str) -> str:
    """Name of a release's new items, below the root.

    Raises:
        ReleaseError: it is not the id of a release.
    """
    return f"{check_id(release_id)}.items"


def new_items_version(root: str, release_id: str) -> str | None:
    """Mark that tells one content of the file from the next, without reading it; None where there is none.

    Raises:
        OSError: the store does not answer.
    """
    return Storage(root).version_of(file_of(release_id))


def read_new_items(root: str, release_id: str) -> NewItems | None:
    """The new items of a release, verified; None where it has none.

    Args:
        root: folder or URL of all releases.
        release_id: the release's.

    Raises:
        ReleaseError: the file is damaged, belongs to another release, or its signature does not hold.
        OSError: it cannot be read.
    """
    store, name = Storage(root), file_of(release_id)
    raw = store.read(name, LARGEST)
    return None if raw is None else parse_new_items(raw, store.name_of(name), release_id)


def find_new_items(root: str, release_id: str) -> NewItems | None:
    """The new items of a release; a file that is damaged or cannot be read is told of in the log, and left out."""
    try:
        return read_new_items(root, release_id)
    except (ReleaseError, OSError) as error:
        log.error("new items are left out: %s", error)
        return None


def find_leaves(root: str, release_id: str, clusters: Clusters) -> dict[str, str]:
    """The leaf of each new item of a release, by its id; empty where there are none, or their file is left out.

    Args:
        root: folder or URL of all releases.
        release_id: the release's.
        clusters: its clusters.
    """
    new = find_new_items(root, release_id)
    leaves = frozenset(clusters.at_level(clusters.depth)) if new is not None else frozenset()
    return {one.item: one.leaf for one in (new.items if new is not None else ()) if one.leaf in leaves}


def parse_new_items(raw: bytes, where: str, release_id: str) -> NewItems:
    """New items from their file.

    Args:
        raw: its bytes.
        where: its name, for errors.
        release_id: the release that it must belong to.

    Raises:
        ReleaseError: it is damaged, belongs to another release, or its signature does not hold.
    """
    head, _, rest = raw.partition(b"\n")
    signed, _, payload = rest.partition(b"\n")
    check_signature(head, lambda: signed or None, where, NEW_ITEMS)
    try:
        record = _Record.model_validate_json(head)
    except (ValidationError, ValueError) as error:
        raise ReleaseError(f"{where}: no record of new items ({' '.join(str(error).split())[:200]})") from error
    if record.format != FORMAT:
        raise ReleaseError(f"{where}: format {record.format}; this newfound reads {FORMAT}")
    if record.release != release_id:
        raise ReleaseError(f"{where}: belongs to release {record.release[:80]!r}; expected {release_id}")
    if len(payload) != record.bytes or hashlib.sha256(payload).hexdigest() != record.sha256:
        raise ReleaseError(f"{where}: its arrays are not those of its record; expected the file as it was written")
    if len({one.item for one in record.items}) != len(record.items):
        raise ReleaseError(f"{where}: names an item twice")
    arrays = _read_arrays(payload, len(record.items), where)
    return NewItems(record.release, datetime.fromisoformat(record.made), tuple(record.items), *arrays)


def add_new_items(root: str, fresh: NewItems, *, replace: bool = False) -> NewItems:
    """Puts items beside their release; of several who add at once, nobody's are lost.

    Args:
        root: folder or URL of all releases.
        fresh: what is added; an item that is there already is replaced.
        replace: whether these take the place of all that is there, damaged or not.

    Returns:
        All that is there now.

    Raises:
        ReleaseError: what is there is damaged, or it would become too much.
    """
    store, name = Storage(root), file_of(fresh.release)
    where = store.name_of(name)
    for _ in range(_TRIES):
        with store.exclusive():
            raw, version = store.read_with_version(name, LARGEST)
            there = None if raw is None or replace else parse_new_items(raw, where, fresh.release)
            whole = fresh if there is None else fresh.with_others(there)
            content = _dump(whole, where)
            if store.write_if(name, content, version) or store.read(name, LARGEST) == content:
                log.info("%s: %d new items, %d of them now", where, len(whole), len(fresh))
                return whole
    raise ReleaseError(f"{where}: changed by others all the time; try again")


def _dump(new: NewItems, where: str) -> bytes:
    if len(new) > MOST:
        raise ReleaseError(
            f"{where}: would hold {len(new)} new items; at most {MOST} are kept beside a release (publish one that has "
            "learned of them)"
        )
    payload = dump_arrays({name: np.ascontiguousarray(getattr(new, name)) for name in ARRAYS})
    head = (
        _Record(
            format=FORMAT,
            release=new.release,
            made=new.made.astimezone(UTC).isoformat(),
            items=list(new.items),
            bytes=len(payload),
            sha256=hashlib.sha256(payload).hexdigest(),
        )
        .model_dump_json()
        .encode()
    )
    content = b"\n".join([head, (sign(head, NEW_ITEMS) or b"").strip(), payload])
    if len(content) > LARGEST:
        raise ReleaseError(f"{where}: would take {len(content)} bytes; at most {LARGEST} are kept beside a release")
    return content


def _read_arrays(payload: bytes, items: int, where: str) -> Iterable[Floats]:
    try:
        found = parse_arrays(payload)
        arrays = [found[name] for name in ARRAYS]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ReleaseError(f"{where}: its arrays cannot be read ({' '.join(str(error).split())[:200]})") from error
    for name, array in zip(ARRAYS, arrays, strict=True):
        if array.dtype != np.float32 or array.ndim != 2 or len(array) != items or not np.isfinite(array).all():
            raise ReleaseError(f"{where}: {name} are not finite float32 values of {items} items")
    return arrays
