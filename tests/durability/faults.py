"""A file layer with faults: below a folder, some operation of this process fails as a file system's would.

A disk that is full takes names no more and of content only a part (a short write, then ENOSPC), until it is emptied; a
broken one fails one operation with EIO; a file system may refuse one rename. Operations are those of `os` and of files
that Python opens; what a library writes by itself is not seen.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from newfound import files
from newfound.errors import NewfoundError
from tests.durability.scenario import Scenario

RENAMES: Final = ("rename", "replace")
NAMES: Final = ("mkdir", "symlink", "link")
REMOVALS: Final = ("unlink", "remove", "rmdir")


@dataclass
class Fault:
    """What fails.

    Attributes:
        name: for reports.
        code: of errno.
        kinds: operations that count: `write`, `name` (a new file or folder), `rename`, `remove`, `flush`.
        lasts: whether all later ones fail too.
    """

    name: str
    code: int
    kinds: frozenset[str]
    lasts: bool


FAULTS: Final = (
    Fault("a full disk", errno.ENOSPC, frozenset({"write", "name"}), True),
    Fault("a broken disk", errno.EIO, frozenset({"write", "name", "rename", "remove", "flush"}), False),
    Fault("a refused rename", errno.EACCES, frozenset({"rename"}), False),
)


class Layer:
    """Counts operations below a folder, and lets them fail from the `at`-th on; 0 lets none fail."""

    def __init__(self, root: Path, fault: Fault, at: int) -> None:
        self.root, self.fault, self.at = os.path.realpath(root) + os.sep, fault, at
        self.count = self.failed = 0

    def fails(self, kind: str, *places: Any) -> bool:
        """Counts an operation on paths or descriptors; whether it must fail."""
        if kind not in self.fault.kinds or not any(map(self._is_below, places)):
            return False
        self.count += 1
        due = bool(self.at) and (self.count >= self.at if self.fault.lasts else self.count == self.at)
        self.failed += due
        return due

    def error(self) -> OSError:
        """What the operation raises."""
        return OSError(self.fault.code, os.strerror(self.fault.code))

    def _is_below(self, place: Any) -> bool:
        if isinstance(place, int):
            try:
                place = os.readlink(f"/proc/self/fd/{place}")
            except OSError:
                return False
        return (os.path.abspath(os.fsdecode(place)) + os.sep).startswith(self.root)


class _File(io.FileIO):
    """A file of which a write may end half-way."""

    layer: Layer

    def write(self, content: Any) -> int:
        if self.layer.fails("write", self.fileno()):
            super().write(memoryview(content).cast("B")[: len(content) // 2])
            raise self.layer.error()
        return super().write(content)


@contextmanager
def failing(root: Path, fault: Fault, at: int) -> Iterator[Layer]:
    """Lets operations below `root` fail while the block runs; see `Layer`."""
    layer = Layer(root, fault, at)
    originals: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(module, name)
        originals.append((module, name, original))
        setattr(module, name, make(original))

    def guarded(kind: str) -> Callable[[Any], Any]:
        def make(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                if layer.fails(kind, *(one for one in args[:2] if isinstance(one, str | bytes | int | os.PathLike))):
                    raise layer.error()
                return original(*args, **kwargs)

            return call

        return make

    def os_open(original: Any) -> Any:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
            if flags & os.O_CREAT and layer.fails("name", path):
                raise layer.error()
            return original(path, flags, *args, **kwargs)

        return call

    def open_file(original: Any) -> Any:
        def call(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wxa+") or not layer._is_below(file):
                return original(file, mode, buffering, *args, **kwargs)
            if not os.path.exists(file) and layer.fails("name", file):
                raise layer.error()
            raw = _File(file, mode.replace("b", "").replace("t", ""))
            raw.layer = layer
            writer = io.BufferedWriter(raw) if "+" not in mode else io.BufferedRandom(raw)
            return writer if "b" in mode else io.TextIOWrapper(writer, *args, **kwargs)

        return call

    try:
        for kind, names in (("rename", RENAMES), ("name", NAMES), ("remove", REMOVALS), ("flush", ("fsync",))):
            for name in names:
                put(os, name, guarded(kind))
        put(os, "sendfile", guarded("write"))
        put(files, "exchange", guarded("rename"))
        put(os, "open", os_open)
        for module in (io, builtins):
            put(module, "open", open_file)
        yield layer
    finally:
        for module, name, original in reversed(originals):
            setattr(module, name, original)


def break_at(scenario: Scenario, fault: Fault, at: int) -> tuple[int, str | None]:
    """Lets the `at`-th operation of a scenario fail, and checks what is there then.

    Returns:
        Operations that counted, and what is wrong; None where nothing is.
    """
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="newfound-fault-", dir=place) as work:
        root = Path(work) / "root"
        root.mkdir()
        scenario.prepare(root)
        with failing(root, fault, at) as layer:
            try:
                scenario.act(root)
                done = True
            except (OSError, NewfoundError):
                done = False
        problem = None
        if at and not layer.failed:
            return layer.count, None
        try:
            left = [path.name for path in root.rglob(".*.part")]
            assert not left or "remove" in fault.kinds, f"left behind: {left}"
            scenario.check(root, done)
        except Exception as error:
            problem = f"{scenario.name}, {fault.name} at operation {at} of it: {error!r}"
        finally:
            shutil.rmtree(root, ignore_errors=True)
        return layer.count, problem
