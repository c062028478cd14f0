"""The pointer `current`: which release serves, moved from one to the next by compare-and-swap.

Each pointer names the one before it, so the moves of `current` are one line. Beside it lies `current.previous`, what
readers fall back to where `current` is damaged: the release before, or, after a rollback, the one gone back to; beside
the first one, itself.
A rollback holds the pointer: later releases are published, and do not serve before somebody promotes one.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from newfound.errors import ReleaseError
from newfound.release.manifest import check_id
from newfound.release.storage import Storage

POINTER: Final = "current"
PREVIOUS: Final = "current.previous"
LARGEST: Final = 64 << 10  # bytes of a pointer
log: Final = logging.getLogger("newfound.release")


def _check_id(release_id: str) -> str:
    try:
        return check_id(release_id)
    except ReleaseError as error:
        raise ValueError(str(error)) from error


ReleaseId = Annotated[str, AfterValidator(_check_id)]


class Pointer(BaseModel):
    """Content of `current`.

    Attributes:
        release: the release that serves.
        parent: the release that it pointed at before.
        move: how often it has moved, this time included.
        held: whether only a person moves it on, as after a rollback.
        at: when it was moved; UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # what a later version adds must not stop this one

    release: ReleaseId
    parent: ReleaseId | None = None
    move: Annotated[int, Field(ge=0, lt=2**53)] = 0
    held: bool = False
    at: Annotated[str, Field(max_length=64)] = ""


def current(root: str) -> str | None:
    """The id of the release that serves, or None where nothing was published yet.

    Args:
        root: folder or URL of all releases.

    Raises:
        ReleaseError: `current` is damaged, and so is what readers would fall back to.
    """
    pointer = read_pointer(Storage(root))
    return pointer.release if pointer else None


def read_pointer(store: Storage) -> Pointer | None:
    """The pointer; see `current` for the errors."""
    return _read(store)[0]


def move(store: Storage, release_id: str, expect: str | None, *, hold: bool = False) -> Pointer:
    """Points `current` at a release, if it still points at the expected one.

    Args:
        store: the place of all releases.
        release_id: whole and verified.
        expect: the release that `current` must still point at; None: at none.
        hold: whether only a person moves it on from there.

    Raises:
        ReleaseError: somebody else has moved it meanwhile.
    """
    with store.exclusive():
        _, kept = store.read_with_version(PREVIOUS, LARGEST)
        before, version = _read(store)
        check_expected(store, before, expect)
        pointer = Pointer(
            release=release_id,
            parent=before.release if before else None,
            move=before.move + 1 if before else 1,
            held=hold,
            at=datetime.now(UTC).isoformat(),
        )
        # A mover that was overtaken must not put an older fallback in the place of the newer one. In both places, a
        # client that tries again is refused by what it has written itself.
        fallback = _dump(pointer if hold or before is None else before)
        if not store.write_if(PREVIOUS, fallback, kept) and store.read(PREVIOUS, LARGEST) != fallback:
            raise _moved(store, expect, "another release")
        if not store.write_if(POINTER, _dump(pointer), version) and _read(store)[0] != pointer:
            raise _moved(store, expect, "another release")
    log.info("current is %s (before: %s)%s", release_id, pointer.parent, ", held" if hold else "")
    return pointer


def check_expected(store: Storage, now: Pointer | None, expect: str | None) -> None:
    """Refuses to go on where `current` is not what somebody began with.

    Raises:
        ReleaseError: it points at another release.
    """
    there = now.release if now else None
    if there != expect:
        raise _moved(store, expect, str(there))


def parse_pointer(raw: bytes) -> Pointer | None:
    """A pointer; None where the bytes are none."""
    try:
        return Pointer.model_validate_json(raw)
    except ValidationError:
        return None


def _read(store: Storage) -> tuple[Pointer | None, str | None]:
    """The pointer and the version of the file `current`, damaged or not."""
    raw, version = store.read_with_version(POINTER, LARGEST)
    if raw is not None and (pointer := parse_pointer(raw)) is not None:
        return pointer, version
    kept = store.read(PREVIOUS, LARGEST)
    if raw is None and kept is None:
        return None, None
    fallback = None if kept is None else parse_pointer(kept)
    problem = "missing" if raw is None else "not a pointer"
    if fallback is None:
        raise ReleaseError(
            f'{store.name_of(POINTER)}: {problem}, and {PREVIOUS} is no help; expected {{"release": "<id>"}}'
        )
    log.error("%s: %s; falling back to %s: %s", store.name_of(POINTER), problem, PREVIOUS, fallback.release)
    return fallback, version


def _dump(pointer: Pointer) -> bytes:
    return json.dumps(pointer.model_dump()).encode() + b"\n"


def _moved(store: Storage, expect: str | None, there: str) -> ReleaseError:
    return ReleaseError(
        f"{store.name_of(POINTER)}: points at {there} by now, expected {expect}; left as it is "
        "(`newfound release promote` moves it by hand)"
    )
