"""Batches of events on disk, oldest first; several processes may share the folder.

A batch is one file, whole or absent, whose name holds the time, the number of events and a random part: no process
overwrites another's. Where two of them send the same file, the collector counts its events once.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from newfound.files import make_folder, new_file, recover

log = logging.getLogger("newfound.serving.outbox")

_NAME: Final = re.compile(r"(?P<time>[0-9]{20})-(?P<events>[0-9]+)-[0-9a-f]{16}\.json")
_OLD_NAME: Final = re.compile(r"[0-9]{12}\.json")  # numbered; as they were written by newfound 0.1.0
_LEFT: Final = re.compile(r"\.(?P<name>[0-9a-f-]+\.json)\.[0-9a-f]{16}\.part")


class Spool:
    """A folder of batches.

    Args:
        folder: made where it is missing; other files in it are left alone.
        limit: most bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.bytes = 0  # of all batches, as far as this process knows

    def open(self) -> None:
        """Makes the folder, and removes what killed writers left half-written.

        Raises:
            OSError: the file system refuses.
        """
        make_folder(self.folder)
        for entry in list(self.folder.iterdir()):
            if left := _LEFT.fullmatch(entry.name):
                recover(self.folder / left["name"])
        self.measure()

    def files(self) -> list[Path]:
        """The batches, oldest first."""
        return sorted(
            file for file in self.folder.iterdir() if _NAME.fullmatch(file.name) or _OLD_NAME.fullmatch(file.name)
        )

    def put(self, events: Iterable[bytes]) -> int:
        """Adds a batch, and removes the oldest ones where they would take too much.

        Args:
            events: each a JSON document.

        Returns:
            Events that were removed; all of these where they alone are too large.

        Raises:
            OSError: the batch could not be written; nothing of it is there.
        """
        events = list(events)
        body = b"[" + b",".join(events) + b"]"
        if len(body) > self.limit:
            return len(events)
        removed = self._make_room(len(body))
        name = f"{time.time_ns():020d}-{len(events)}-{secrets.token_hex(8)}.json"
        with new_file(self.folder / name) as file:
            file.write_bytes(body)
        self.bytes += len(body)
        return removed

    def read(self, file: Path) -> list[bytes] | None:
        """The events of a batch; None where another process has removed it.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no batch.
        """
        try:
            found = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(found, list):
            raise ValueError(f"{file}: expected a JSON array")
        return [orjson.dumps(event) for event in found]

    def remove(self, file: Path) -> None:
        """Removes a batch."""
        file.unlink(missing_ok=True)

    def measure(self) -> None:
        """Counts the bytes of all batches anew."""
        self.bytes = sum(size for _, size in self._sizes())

    def _sizes(self) -> list[tuple[Path, int]]:
        found = []
        for file in self.files():
            try:
                found.append((file, file.stat().st_size))
            except FileNotFoundError:  # sent by another process
                continue
        return found

    def _make_room(self, needed: int) -> int:
        if self.bytes + needed <= self.limit:
            return 0
        sizes, removed = self._sizes(), 0
        self.bytes = sum(size for _, size in sizes)
        for file, size in sizes:
            if self.bytes + needed <= self.limit:
                break
            removed += self._count(file)
            self.remove(file)
            self.bytes -= size
        return removed

    def _count(self, file: Path) -> int:
        if named := _NAME.fullmatch(file.name):
            return int(named["events"])
        try:
            return len(self.read(file) or ())
        except (OSError, ValueError):
            return 1
