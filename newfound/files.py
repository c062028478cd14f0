"""Files: crash-safe writing, and settings in YAML.

A file or folder appears whole or not at all, and stays when the machine loses power.

What is new is made in a hidden work folder beside its place, flushed to the disk and renamed into place; then the
folder around it is flushed as well. A writer that is killed leaves the old or the new, never neither. The next writer
of the same path removes what it left behind; a lock on a work folder tells that its writer still lives.

A folder is only replaced or removed where it is empty or holds a record by which it is known to be one of ours.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import fsspec
import yaml

from newfound.errors import ConfigError, OutputError

_TOKEN: Final = re.compile(r"[0-9a-f]{16}")
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@contextmanager
def new_file(out: str | Path, mode: int = 0o666) -> Iterator[Path]:
    """The path of a file to write, which takes the place of `out` when the block ends well.

    Args:
        out: the file; folders above it are made.
        mode: permissions, from the first byte on, less those that the process's umask takes away.

    Raises:
        OSError: the file system refuses; `out` is then as it was.
    """
    out = Path(os.path.realpath(out))
    with _work_folder(out) as work:
        made = work / out.name
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        yield made
        _flush(made)
        os.replace(made, out)
        _flush(out.parent)


@contextmanager
def new_folder(out: str | Path, record: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of `out` when the block ends well.

    Args:
        out: the folder; folders above it are made.
        record: the file in it by which it is known as ours from then on. The block writes it.

    Raises:
        OutputError: `out` holds something, and no `record`: it may be a person's.
        OSError: the file system refuses; `out` is then as it was.
    """
    out = Path(os.path.realpath(out))
    with _work_folder(out) as work:
        _check_ours(out, record)
        made = work / out.name
        made.mkdir()
        yield made
        if not (made / record).is_file():
            raise ValueError(f"{out}: made without its record {record!r}")
        for folder, _, names in os.walk(made):
            for name in names:
                _flush(Path(folder, name))
            _flush(Path(folder))
        _check_ours(out, record)
        _put_in_place(made, out, _aside(work, out))
        _flush(out.parent)
        _flush(work)


def write_text(out: str | Path, text: str, mode: int = 0o666) -> None:
    """Writes a file of UTF-8 text; see `new_file`."""
    with new_file(out, mode) as file:
        file.write_text(text, encoding="utf-8")


def write_json(out: str | Path, content: Any, *, sort_keys: bool = False) -> None:
    """Writes a file of strict JSON with an indent of one; see `new_file`.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(out, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys) + "\n")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping; an empty file holds an empty one.

    Raises:
        ConfigError: the file cannot be read, or is no YAML mapping.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}; expected a mapping of settings")
    return raw


def put_file(source: Path, url: str) -> None:
    """Copies a file to a path or a URL that fsspec knows, where it appears whole or not at all.

    An object store shows an object when all of it is there; on a file system it is `new_file` that sees to it.
    """
    fs, path = fsspec.core.url_to_fs(url)
    if is_local(fs):
        with new_file(path) as file:
            shutil.copyfile(source, file)
    else:
        fs.put_file(str(source), path)


def is_local(fs: Any) -> bool:
    """Whether an fsspec file system is this machine's own."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))


def link(out: str | Path, target: str | Path) -> None:
    """Points the symbolic link `out` at `target`, in one step.

    Raises:
        OutputError: there is something at `out` that is no link.
    """
    out = Path(os.path.realpath(Path(out).parent), Path(out).name)
    if out.exists() and not out.is_symlink():
        raise OutputError(f"{out}: is no symbolic link; expected one, or nothing, to put a link there")
    with _work_folder(out) as work:
        (work / out.name).symlink_to(target)
        os.replace(work / out.name, out)
        _flush(out.parent)


def remove_folder(folder: str | Path, record: str) -> None:
    """Removes a folder of ours, if it is there; half of it never stays under its name.

    Args:
        folder: the folder.
        record: see `new_folder`.

    Raises:
        OutputError: it holds something, and no `record`.
    """
    folder = Path(folder)
    recover(folder)
    if not folder.exists():
        return
    _check_ours(folder, record)
    with _work_folder(folder) as work:
        folder.rename(work / folder.name)
        _flush(folder.parent)


def recover(out: str | Path) -> None:
    """Brings order into what killed writers of `out` left: an old folder that they had moved aside goes back.

    `new_file` and `new_folder` begin with it. Whoever reads a folder that may have been replaced does so too, because
    not every file system exchanges two folders in one step (network file systems do not).
    """
    out = Path(os.path.realpath(out))
    for work in _work_folders(out):
        lock = _lock(work, wait=False)
        if lock is None:
            continue  # its writer lives, or the file system cannot tell
        _put_back(work, out)
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, to stay."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _flush(one.parent)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A hidden, locked folder beside `out`, which is gone afterwards with all that is still in it."""
    make_folder(out.parent)
    recover(out)
    while True:
        work = out.with_name(f".{out.name}.{secrets.token_hex(8)}.part")
        work.mkdir()
        lock = _lock(work, wait=True)
        if work.is_dir():  # another writer may have taken it for abandoned before it was locked
            break
        if lock is not None:
            os.close(lock)
    try:
        yield work
    finally:
        _put_back(work, out)
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _work_folders(out: Path) -> list[Path]:
    before, after = f".{out.name}.", ".part"
    with suppress(FileNotFoundError), os.scandir(out.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(before) and entry.name.endswith(after)]
        return [out.parent / name for name in names if _TOKEN.fullmatch(name[len(before) : -len(after)])]
    return []


def _lock(work: Path, wait: bool) -> int | None:
    """A descriptor that holds the folder's lock; None where somebody else has it, or the file system has no locks."""
    try:
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _put_in_place(made: Path, out: Path, aside: Path) -> None:
    try:
        made.rename(out)  # nothing is there, or an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not exchange(made, out):
        _flush(out.parent)  # the work folder's name first: what is moved into it must be found again
        out.rename(aside)
        made.rename(out)


def _aside(work: Path, out: Path) -> Path:
    """Place of the old folder while the new one is renamed, on file systems that cannot exchange them."""
    return work / f"{out.name}.old"


def _put_back(work: Path, out: Path) -> None:
    with suppress(OSError):  # nothing was moved aside, or something is in its place
        _aside(work, out).rename(out)
        _flush(out.parent)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step (Linux, renameat2); False where kernel or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _check_ours(folder: Path, record: str) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / record).is_file():
        raise OutputError(
            f"{folder}: holds files, and no {record} by which it would be known as newfound's own; expected an empty "
            "folder or a new one"
        )


def _flush(path: Path) -> None:
    """Brings a file's bytes, or a folder's names, to the disk."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
