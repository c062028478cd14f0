"""``python -m tests.chaos.faulty FILE MODULE ...``: runs a module on a disk and a clock that fail as a file says.

The file holds `disk` and `clock` as JSON. Disk: `short` writes half of a file and reports that no space is left, `eio`
fails to flush, `rename` refuses to put a file in its place. Clock: seconds that the explorer's is ahead.
"""

from __future__ import annotations

import errno
import json
import os
import runpy
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

_write_bytes, _fsync, _replace, _datetime, _time_ns = Path.write_bytes, os.fsync, os.replace, datetime, time.time_ns
_control = Path()


def _fault(part: str) -> Any:
    try:
        return json.loads(_control.read_bytes()).get(part)
    except FileNotFoundError:
        return None


def _refuse(code: int) -> None:
    raise OSError(code, os.strerror(code))


def _short_write(file: Path, data: Any) -> int:
    if _fault("disk") == "short":
        _write_bytes(file, bytes(data)[: len(data) // 2])
        _refuse(errno.ENOSPC)
    return _write_bytes(file, data)


def _unflushed(descriptor: int) -> None:
    if _fault("disk") == "eio":
        _refuse(errno.EIO)
    _fsync(descriptor)


def _not_replaced(*arguments: Any, **more: Any) -> None:
    if _fault("disk") == "rename":
        _refuse(errno.EACCES)
    _replace(*arguments, **more)


class _Skewed(_datetime):
    """A clock that is ahead, or behind where the number is negative."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return _datetime.fromtimestamp(time.time() + (_fault("clock") or 0), tz)


def main() -> None:
    """Spoils disk and clock of this process, and runs the module."""
    global _control
    _control, module, *arguments = Path(sys.argv[1]), *sys.argv[2:]
    Path.write_bytes, os.fsync, os.replace = _short_write, _unflushed, _not_replaced  # type: ignore[assignment, method-assign]
    time.time_ns = lambda: _time_ns() + int((_fault("clock") or 0) * 1e9)
    import serving.explorer.reporting

    serving.explorer.reporting.datetime = _Skewed  # type: ignore[misc]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
