"""A base model at a URL, fetched into a folder and held against digests.

The folder there has a file `SHA256SUMS`, as `sha256sum * > SHA256SUMS` writes it, and the configuration has the digest
of that file: whoever may write the bucket cannot change what is trained.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, Final

import fsspec

from newfound.errors import DataError
from newfound.files import new_folder

SUMS: Final = "SHA256SUMS"
_RECORD: Final = "config.json"
_LARGEST: Final = 1 << 20  # bytes of the list
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.*)")
_NAME: Final = re.compile(r"[\w.-]{1,255}")
log = logging.getLogger("newfound.planner")


def fetch_model(url: str, sha256: str, folder: Path) -> Path:
    """Fetches a Hugging Face folder, which appears whole and verified or not at all; one that is there stays.

    Args:
        url: a folder's, of any store that fsspec knows.
        sha256: of its `SHA256SUMS`, in hex.
        folder: where to.

    Raises:
        DataError: a file is away, or is not what the digests say; the message names it.
    """
    if (folder / _RECORD).is_file():
        return folder
    fs, path = fsspec.core.url_to_fs(url.rstrip("/"))
    sums = f"{url.rstrip('/')}/{SUMS}"
    listed = _read(fs, f"{path}/{SUMS}", sums)
    if hashlib.sha256(listed).hexdigest() != sha256:
        raise DataError(sums, "another sha256 than `planner.model_sha256`", expected=sha256)
    files = _files(listed, sums)
    log.info("base model: fetching %d files from %s", len(files), url)
    with new_folder(folder, _RECORD) as part:
        (part / SUMS).write_bytes(listed)
        for name, digest in files.items():
            _get(fs, f"{path}/{name}", part / name, f"{url.rstrip('/')}/{name}")
            if _sha256(part / name) != digest:
                raise DataError(f"{url.rstrip('/')}/{name}", f"another sha256 than in {SUMS}", expected=digest)
    return folder


def _files(listed: bytes, sums: str) -> dict[str, str]:
    """Digests by name."""
    files = {}
    for line in listed.decode("utf-8", errors="replace").splitlines():
        read = _LINE.fullmatch(line)
        if read is None:
            raise DataError(sums, f"a line {line[:80]!r}", expected="what `sha256sum * > SHA256SUMS` writes")
        if not _NAME.fullmatch(read[2]) or read[2] in (".", "..", SUMS):
            raise DataError(sums, f"a file {read[2][:80]!r}", expected="plain names of files in that folder")
        files[read[2]] = read[1]
    if _RECORD not in files:
        raise DataError(sums, f"no {_RECORD}", expected="the files of a Hugging Face model folder")
    return files


def _read(fs: Any, path: str, url: str) -> bytes:
    try:
        return bytes(fs.cat_file(path, end=_LARGEST))
    except Exception as error:  # each store's client has its own errors
        raise DataError(url, f"cannot be fetched ({error})", expected="a list of digests that may be read") from error


def _get(fs: Any, path: str, to: Path, url: str) -> None:
    try:
        fs.get_file(path, str(to))
    except Exception as error:  # each store's client has its own errors
        raise DataError(url, f"cannot be fetched ({error})", expected="a file that may be read") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
