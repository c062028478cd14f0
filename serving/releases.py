"""Releases as services follow them: copied, verified, loaded, switched under load; the previous one stays loaded.

What appeared after a release was made is followed likewise: see `serving.new_items`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic

from newfound.errors import NewfoundError, ReleaseError
from newfound.release.store import check_id, current, load
from newfound.release.takedown import Takedown, read_takedown
from serving.gc_freeze import freeze_collected
from serving.metrics import (
    NEW_ITEMS,
    NEW_ITEMS_AGE,
    RELEASE,
    RELEASE_LOADED,
    RELEASE_REFUSED,
    TAKEDOWN_AGE,
    TAKEDOWN_FAILED,
    TAKEDOWN_SIZE,
)
from serving.new_items import T, WithNewItems

log = logging.getLogger("newfound.serving.releases")


class Releases(Generic[T]):
    """Follows `current`, and keeps it and its predecessor loaded.

    A release that does not verify, or that `build` refuses, is reported by the name of its file and not tried again
    before `current` moves or `retry_s` have passed; what served before it goes on serving.

    Args:
        root: folder or URL of all releases.
        cache: a local folder of this process alone.
        parts: files and folders of a release that are copied there.
        optional: further ones, copied where the release has them.
        build: makes what serves of a copied folder and the release's id; may raise NewfoundError.
        watch_s: how often `current`, new items and the takedown list are looked at.
        admit: whether a release that was built may serve yet; asked again at every look. The first one always may.
        retry_s: see above.
        pinned: the release that serves whatever `current` says, as a canary does.

    Raises:
        ReleaseError: `pinned` is not the id of a release.
    """

    def __init__(
        self,
        root: str,
        cache: Path,
        parts: Sequence[str],
        build: Callable[[Path, str], T],
        watch_s: float,
        admit: Callable[[str], bool] = lambda release: True,
        optional: Sequence[str] = (),
        retry_s: float = 30.0,
        pinned: str | None = None,
    ) -> None:
        self.root, self.cache, self.parts, self.build = root, cache, tuple(parts), build
        self.optional = tuple(optional)
        self.watch_s, self.admit, self.retry_s = watch_s, admit, retry_s
        self.pinned = None if pinned is None else check_id(pinned)
        self._held: dict[str, WithNewItems[T]] = {}  # newest last; at most two
        self.active: str | None = None
        self._takedown: Takedown | None = None  # None until it was read once
        self._takedown_read_at = time.monotonic()
        TAKEDOWN_AGE.set_function(lambda: time.monotonic() - self._takedown_read_at)
        NEW_ITEMS.set_function(lambda: self._of_active("count"))
        NEW_ITEMS_AGE.set_function(lambda: self._of_active("age_s"))
        self._built: tuple[str, T] | None = None
        self._refused: tuple[str, float] | None = None
        self._stop = threading.Event()

    @property
    def takedown(self) -> Takedown:
        """The takedown list as it was last read; empty before the first time, when `get` returns None."""
        return self._takedown or Takedown()

    @property
    def loaded(self) -> dict[str, T]:
        """The loaded releases with their new items, newest last; at most two."""
        return {release: one.served for release, one in self._held.items()}

    def get(self) -> T | None:
        """The serving release; None before the first release, and until the takedown list was read once."""
        if self.active is None or self._takedown is None:
            return None
        return self.loaded.get(self.active)

    def other(self, ids: Sequence[str]) -> T | None:
        """A loaded release other than the active one that is among `ids`."""
        loaded = self.loaded
        return next((loaded[one] for one in ids if one in loaded and one != self.active), None)

    def start(self) -> None:
        """Follows the current release and the takedown list in the background.

        The takedown list has a thread of its own: copying and checking a large release takes its time, and what was
        taken down must not be shown in the meantime.
        """
        for name, look in (("takedown", self._look_at_takedown), ("releases", self._look_at_releases)):
            threading.Thread(target=self._watch, args=(look,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Ends the threads at their next look."""
        self._stop.set()

    def _watch(self, look: Callable[[], None]) -> None:
        self._safely(look)
        while not self._stop.wait(self.watch_s):
            self._safely(look)

    def look(self) -> None:
        """Looks at the takedown list, at `current` and at new items once; never raises."""
        self._safely(self._look_at_takedown)
        self._safely(self._look_at_releases)

    def _safely(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception:
            log.exception("looking at %s failed", self.root)

    def _look_at_takedown(self) -> None:
        try:
            takedown = read_takedown(self.root)
        except (ReleaseError, OSError) as error:
            TAKEDOWN_FAILED.inc()
            log.error("the takedown list is kept as last read: %s", error)
            return
        self._takedown_read_at = time.monotonic()
        if takedown != self._takedown:
            self._takedown = takedown
            TAKEDOWN_SIZE.set(len(takedown.items) + len(takedown.clusters))
            log.warning("takedown: %d items, %d clusters", len(takedown.items), len(takedown.clusters))

    def _look_at_releases(self) -> None:
        self._look_at_current()
        if any([one.look() for one in self._held.values()]):
            freeze_collected()

    def _of_active(self, figure: str) -> float:
        held = self._held.get(self.active or "")
        return 0.0 if held is None else float(getattr(held, figure))

    def _look_at_current(self) -> None:
        try:
            wanted = self.pinned or current(self.root)
        except (ReleaseError, OSError) as error:
            log.error("current cannot be read: %s", error)
            return
        if wanted is None or wanted == self.active:
            return
        if wanted not in self._held and (self._built is None or self._built[0] != wanted):
            if self._refused is not None and self._refused[0] == wanted and time.monotonic() < self._refused[1]:
                return
            try:
                self._built = (wanted, self._make(wanted))
            except (NewfoundError, OSError) as error:
                RELEASE_REFUSED.inc()
                self._refused = (wanted, time.monotonic() + self.retry_s)
                log.error("release %s is refused: %s", wanted, error, extra={"fields": {"release": wanted}})
                return
        if self.active is None or self.admit(wanted):
            self._activate(wanted)

    def _activate(self, wanted: str) -> None:
        before = self.active
        if wanted not in self._held:
            assert self._built is not None
            made = WithNewItems(self.root, wanted, self._built[1])
            made.look()  # before anybody sees it without them
            previous = {before: self._held[before]} if before is not None else {}
            self._held = {**previous, wanted: made}
            self._built = None
        self.active = wanted
        if before is not None:
            RELEASE.remove(before)
        freeze_collected()
        RELEASE.labels(wanted).set(1)
        RELEASE_LOADED.set_to_current_time()
        log.warning("release %s serves (before: %s)", wanted, before, extra={"fields": {"release": wanted}})

    def _make(self, release: str) -> T:
        """Copies what is needed, checks the copy, and builds from it: nobody else can change it under our feet."""
        # What is memory-mapped stays readable after its name is gone.
        with tempfile.TemporaryDirectory(prefix="release-", dir=self.cache, ignore_cleanup_errors=True) as made:
            downloads, copy = Path(made) / "downloads", Path(made) / check_id(release)
            source = load(self.root, release, downloads, [*self.parts, *self.optional])
            for part in (*self.parts, *self.optional, "manifest.json"):
                origin = source.path / part
                if not origin.exists() and part in self.optional:
                    continue
                if not origin.exists():
                    raise ReleaseError(f"{origin}: missing from the release")
                (copy / part).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if origin.is_dir() else shutil.copy2)(origin, copy / part)
            for name, record in source.manifest.files.items():
                if (copy / name).is_file():
                    with (copy / name).open("rb") as stream:
                        if hashlib.file_digest(stream, "sha256").hexdigest() != record.sha256:
                            raise ReleaseError(f"{source.path / name}: changed while it was copied")
            return self.build(copy, release)
