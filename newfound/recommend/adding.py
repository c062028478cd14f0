"""Adds what appeared after a release was made: reads the items, places them, and puts them beside the release."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from newfound import schema
from newfound.datasets.items import read_items
from newfound.errors import DataError, ReleaseError
from newfound.recommend.placing import PARTS, Placer, row_digest, rows_of
from newfound.release.new_items import add_new_items, read_new_items
from newfound.release.store import current, load

log = logging.getLogger("newfound.recommend.adding")


@dataclass(frozen=True)
class Added:
    """Outcome of an addition.

    Attributes:
        release: the release.
        added: items that were placed, anew or for the first time.
        unchanged: items that were there already, with the same row.
        known: items of the release itself, passed over.
        whole: its new items now.
    """

    release: str
    added: int
    unchanged: int
    known: int
    whole: int


def add_items(
    root: str,
    source: str,
    release: str | None = None,
    cache: Path | None = None,
    *,
    skip_known: bool = False,
    replace: bool = False,
) -> Added:
    """Adds items to a release; adding them twice changes nothing.

    Args:
        root: folder or URL of all releases.
        source: the items' file, CSV or Parquet, here or at a URL.
        release: its id; None: the current one.
        cache: local folder for a remote root; None: one that is gone afterwards.
        skip_known: whether items of the release itself are passed over, rather than refused.
        replace: whether these take the place of all that was added before, damaged or not.

    Raises:
        DataError: the file breaks the loader's contract, or an item is none that can be added.
        ConfigError: the release was made without text and categories, or its text model cannot be loaded.
        ReleaseError: there is no such release, it does not verify, or what was added before is damaged.
    """
    items = read_items(source)
    release = release or current(root)
    if release is None:
        raise ReleaseError(f"{root}: no release was published yet")
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        placer = Placer.load(load(root, release, cache or Path(folder), PARTS).path, release)
        of_release = items[schema.ITEM].isin(placer.known)
        if of_release.any() and not skip_known:
            item = items[schema.ITEM][of_release].iloc[0]
            expected = "items that appeared after it (--skip-known passes over the others)"
            raise DataError(source, f"item {item!r} is in release {release}", column=schema.ITEM, expected=expected)
        items = items[~of_release]
        before = None if replace else read_new_items(root, release)
        rows = {} if before is None else {one.item: one.row for one in before.items}
        changed = [rows.get(row[0]) != row_digest(*row[1:]) for row in rows_of(items)]
        fresh, whole = items[changed], 0 if before is None else len(before)
        if len(fresh):
            new = placer.place(fresh, datetime.now(UTC), source, before)
            whole = len(add_new_items(root, new, replace=replace))
    return Added(release, len(fresh), len(items) - len(fresh), int(of_release.sum()), whole)
