"""The place of all releases: a folder, or a bucket's prefix, with bounded reads and compare-and-swap on small files.

A folder's small files are swapped under a lock and by a rename, S3's by If-Match. Whoever only reads takes no lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec

from newfound.errors import ReleaseError
from newfound.files import is_local, make_folder, new_file, put_file

LOCK: Final = "current.lock"
_REFUSED: Final = (404, 409, 412)  # what a store answers where a condition does not hold
_in_memory = threading.RLock()


class Storage:
    """Releases, pointer and lists below one root.

    Args:
        root: a folder, or any URL that fsspec knows.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.fs, self.base = fsspec.core.url_to_fs(root)
        self.is_local = is_local(self.fs)

    def name_of(self, name: str) -> str:
        """A file's whole name, for errors."""
        return f"{self.base}/{name}"

    def read(self, name: str, largest: int) -> bytes | None:
        """A small file; None where there is none.

        Raises:
            ReleaseError: it is larger than `largest` bytes.
            OSError: it cannot be read.
        """
        content, _ = self.read_with_version(name, largest)
        if content is not None and len(content) > largest:
            raise ReleaseError(f"{self.name_of(name)}: larger than {largest} bytes")
        return content

    def read_with_version(self, name: str, largest: int) -> tuple[bytes | None, str | None]:
        """A small file, cut off behind `largest` + 1 bytes, and what an object store calls its version.

        The content is as new as the version, or newer.
        """
        path = self.name_of(name)
        self.fs.invalidate_cache()  # a client remembers what it listed, and would never see what is new
        try:
            found = self.fs.info(path)
            if found["type"] == "directory":
                raise ReleaseError(f"{path}: a folder; expected a file")
            end = largest + 1 if (found["size"] or 0) > largest else None
            return bytes(self.fs.cat_file(path, end=end)), found.get("ETag")
        except FileNotFoundError:
            return None, None

    def version_of(self, name: str) -> str | None:
        """Mark that tells one content of a small file from the next, without reading it; None where there is none.

        Raises:
            OSError: the store does not answer.
        """
        self.fs.invalidate_cache()
        try:
            found = self.fs.info(self.name_of(name))
        except FileNotFoundError:
            return None
        return "|".join(str(found.get(key)) for key in ("ETag", "ino", "mtime", "created", "size"))

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file, whole or not at all."""
        if self.is_local:
            with new_file(self.name_of(name)) as file:
                file.write_bytes(content)
        else:
            self.fs.pipe_file(self.name_of(name), content)

    def write_if(self, name: str, content: bytes, version: str | None) -> bool:
        """Writes a small file if it still has this version (None: if it is not there); whether it was written.

        On a folder the caller holds `exclusive`, and that is all it takes.
        """
        if not self._is_s3:
            self.write(name, content)
            return True
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            self.fs.pipe_file(self.name_of(name), content, **condition)
        except OSError as error:
            answer = getattr(error.__cause__, "response", None) or {}
            if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in _REFUSED:
                return False
            raise
        return True

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other writers out of a folder; an object store has conditions instead.

        Raises:
            ReleaseError: the store has neither a lock nor conditions.
        """
        if self.is_local:
            make_folder(Path(self.base))
            with open(self.name_of(LOCK), "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        elif self._speaks("memory"):
            with _in_memory:
                yield
        elif self._is_s3:
            yield
        else:
            raise ReleaseError(f"{self.root}: `current` cannot be swapped safely there; expected a folder or s3://")

    def upload(self, source: Path, name: str) -> None:
        """Copies a file there."""
        if not self.is_local:
            self.fs.makedirs(os.path.dirname(self.name_of(name)), exist_ok=True)
        put_file(source, self.fs.unstrip_protocol(self.name_of(name)))

    def download(self, name: str, to: Path) -> None:
        """Copies a file from there.

        Raises:
            ReleaseError: it is missing.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.fs.get_file(self.name_of(name), str(to))
        except FileNotFoundError as error:
            raise ReleaseError(f"{self.name_of(name)}: missing from the release") from error

    def folders(self) -> list[str]:
        """Names of what lies directly below the root."""
        self.fs.invalidate_cache()
        if not self.fs.exists(self.base):
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.base, detail=False)]

    @property
    def _is_s3(self) -> bool:
        return self._speaks("s3")

    def _speaks(self, protocol: str) -> bool:
        spoken: Any = self.fs.protocol
        return protocol in (spoken if isinstance(spoken, tuple | list) else (spoken,))
