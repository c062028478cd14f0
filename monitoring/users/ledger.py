"""The ledger of erasures: who was erased until when, by keyed hash, and the receipt of what was removed where.

It lies outside the database, as one small file an erasure in a folder or below a URL: a database that is restored from
a backup has forgotten the erasures since, and the ledger brings them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec

from newfound.errors import DataError
from newfound.files import is_local, write_text


@dataclass(frozen=True)
class Outcome:
    """Outcome of an erasure at a place.

    Attributes:
        place: table, file, URL or `feast.online`.
        removed: rows or events.
        failed: why nothing is known to be removed; None where the place is done.
    """

    place: str
    removed: int = 0
    failed: str | None = None


@dataclass(frozen=True)
class Receipt:
    """One erasure.

    Attributes:
        user_key: the user's keyed hash.
        asked: when it was asked for.
        until: the user's events until then are dropped, whenever they arrive.
        outcomes: by place; empty while the erasure is under way.
    """

    user_key: str
    asked: datetime
    until: datetime
    outcomes: Sequence[Outcome] = ()

    @property
    def complete(self) -> bool:
        """Whether every place is done."""
        return bool(self.outcomes) and not any(outcome.failed for outcome in self.outcomes)

    @property
    def name(self) -> str:
        """Of the file in the ledger."""
        return f"{self.asked.astimezone(UTC):%Y%m%dT%H%M%S%f}-{self.user_key}.json"

    def document(self) -> dict[str, Any]:
        """The receipt as JSON."""
        return {
            "user_key": self.user_key,
            "asked": self.asked.isoformat(),
            "until": self.until.isoformat(),
            "complete": self.complete,
            "places": [
                {"place": outcome.place, "removed": outcome.removed}
                | ({"failed": outcome.failed} if outcome.failed else {})
                for outcome in self.outcomes
            ],
        }


class Ledger:
    """A folder of receipts.

    Args:
        url: path or URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._folder = fsspec.core.url_to_fs(url)

    def put(self, receipt: Receipt) -> None:
        """Writes a receipt in the place of the erasure's earlier one; it is there to stay when this returns."""
        text = json.dumps(receipt.document(), indent=1) + "\n"
        path = f"{self._folder}/{receipt.name}"
        if is_local(self._fs):
            write_text(path, text)
        else:
            self._fs.pipe_file(path, text.encode())

    def until(self) -> dict[str, datetime]:
        """By hash of every user who was ever erased, the latest moment until which events are dropped.

        Raises:
            DataError: a file of the ledger cannot be read.
        """
        found: dict[str, datetime] = {}
        for path in sorted(self._fs.glob(f"{self._folder}/*.json")):
            try:
                document: Mapping[str, Any] = json.loads(self._fs.cat_file(path))
                key, until = str(document["user_key"]), datetime.fromisoformat(document["until"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(str(path), "is no receipt of an erasure", expected="user_key and until") from error
            found[key] = max(until, found.get(key, until))
        return found
