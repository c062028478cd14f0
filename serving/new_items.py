"""New items of a release that is loaded, followed as they are added: verified, put in, refused by name."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Generic, Protocol, Self, TypeVar

from newfound.errors import NewfoundError
from newfound.release.new_items import NewItems, new_items_version, read_new_items
from serving.metrics import NEW_ITEMS_REFUSED

log = logging.getLogger("newfound.serving.releases")


class Serving(Protocol):
    """A loaded release's part in a service."""

    def with_new(self, new: NewItems) -> Self:
        """The same with new items; this one stays as it is.

        Raises:
            NewfoundError: they do not fit it.
        """
        ...


T = TypeVar("T", bound=Serving)


class WithNewItems(Generic[T]):
    """A loaded release, and what serves of it with its new items.

    A file of new items that is damaged changes nothing: what served before goes on serving, and the file is read anew
    once it has changed.

    Args:
        root: folder or URL of all releases.
        release: its id.
        alone: what serves without new items.

    Attributes:
        served: what serves now.
        count: its new items.
    """

    def __init__(self, root: str, release: str, alone: T) -> None:
        self._root, self._release, self._alone = root, release, alone
        self._version: str | None = None
        self._made: datetime | None = None
        self.served, self.count = alone, 0

    @property
    def age_s(self) -> float:
        """Seconds since new items were last added; 0 without any."""
        return 0.0 if self._made is None else max(time.time() - self._made.timestamp(), 0.0)

    def look(self) -> bool:
        """Looks whether new items were added, and takes them up; whether something changed. Never raises."""
        version: str | None = None
        try:
            version = new_items_version(self._root, self._release)
            if version == self._version:
                return False
            new = None if version is None else read_new_items(self._root, self._release)
            served = self._alone if new is None else self._alone.with_new(new)
        except OSError as error:  # tried again at the next look
            self._refuse(error)
            return False
        except NewfoundError as error:
            self._refuse(error)
            self._version = version
            return False
        except Exception as error:  # whatever is wrong with it, it must not keep the release from serving
            log.exception("new items could not be put in")
            self._refuse(error)
            self._version = version
            return False
        self.served, self._version = served, version
        self.count, self._made = (0, None) if new is None else (len(new), new.made)
        log.warning("%d new items serve", self.count, extra={"fields": {"release": self._release}})
        return True

    def _refuse(self, error: Exception) -> None:
        NEW_ITEMS_REFUSED.inc()
        log.error("new items are refused: %s", error, extra={"fields": {"release": self._release}})
