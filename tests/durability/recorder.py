"""Records what happens to the files below a folder: writes, creations, renames, removals and flushes, in their order.

The functions of `os` that change or flush files are watched; what happens between two of their calls, in whatever
library, is found by comparing the folder with what it was. A write that a library flushes by itself counts as one that
was not flushed: the crash states are then more than there can be, never fewer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from newfound import files

WATCHED: Final = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "symlink", "truncate", "open")
FLUSHES: Final = ("fsync", "fdatasync")
Node = int  # a file or folder, whatever its names are
Entry = tuple[Node, str]  # a name in a folder


@dataclass(frozen=True)
class Names:
    """Names that appear, or vanish (None), together: one call, or one that nobody saw."""

    changes: Mapping[Entry, Node | None]


@dataclass(frozen=True)
class Content:
    """A file's new content; None for a folder, the target for a link."""

    node: Node
    content: bytes | str | None


@dataclass(frozen=True)
class Flush:
    """A file's content, or a folder's names, are on the disk."""

    node: Node


Operation = Names | Content | Flush


@dataclass
class Tree:
    """Files and folders by number, the root being 0."""

    content: dict[Node, bytes | str | None] = field(default_factory=lambda: {0: None})
    names: dict[Entry, Node] = field(default_factory=dict)

    def copy(self) -> Tree:
        """Another tree that is alike."""
        return Tree(dict(self.content), dict(self.names))


class Recording:
    """What was there first, and the operations since."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers: dict[int, Node] = {}
        self._count = 0
        self._lock = threading.RLock()
        self.operations: list[Operation] = []
        self._now = self._scan()
        self.start = self._now.copy()

    def look(self) -> None:
        """Records what changed since the last look."""
        with self._lock:
            found = self._scan()
            for node, content in found.content.items():
                if node not in self._now.content or self._now.content[node] != content:
                    self.operations.append(Content(node, content))
            entries = {**dict.fromkeys(self._now.names), **found.names}
            changes = {entry: node for entry, node in entries.items() if self._now.names.get(entry) != node}
            if changes:
                self.operations.append(Names(changes))
            self._now = found

    def flushed(self, descriptor: int) -> None:
        """Records a flush of whatever a descriptor stands for, if that lies below the root."""
        with self._lock:
            self.look()
            node = self._numbers.get(os.fstat(descriptor).st_ino)
            if node is not None:
                self.operations.append(Flush(node))

    def _scan(self) -> Tree:
        tree, numbers = Tree(), {os.stat(self.root).st_ino: 0}
        waiting = [(0, self.root)]
        while waiting:
            parent, folder = waiting.pop()
            for entry in sorted(os.scandir(folder), key=lambda one: one.name):
                inode = entry.inode()
                node = numbers.get(inode)
                if node is None:
                    node = self._numbers.get(inode) or self._next()
                    numbers[inode] = node
                tree.names[parent, entry.name] = node
                path = Path(entry.path)
                if entry.is_symlink():
                    tree.content[node] = os.readlink(path)
                elif entry.is_dir():
                    tree.content[node] = None
                    waiting.append((node, path))
                else:
                    tree.content[node] = path.read_bytes()
        self._numbers = numbers  # what is gone may come again as another file with the same inode
        return tree

    def _next(self) -> Node:
        self._count += 1
        return self._count


@contextmanager
def record(root: Path) -> Iterator[Recording]:
    """Records what the block does below `root`, in all threads of this process."""
    recording = Recording(root)
    originals: dict[tuple[Any, str], Callable[..., Any]] = {}
    busy = threading.local()

    def watch(module: Any, name: str, after: Callable[..., None]) -> None:
        original = originals[module, name] = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if getattr(busy, "here", False):
                return original(*args, **kwargs)
            busy.here = True
            try:
                with recording._lock:
                    recording.look()
                    answer = original(*args, **kwargs)
                    after(*args)
                    return answer
            finally:
                busy.here = False

        setattr(module, name, watched)

    for name in WATCHED:
        watch(os, name, lambda *_: recording.look())
    for name in FLUSHES:
        watch(os, name, lambda descriptor, *_: recording.flushed(descriptor))
    watch(files, "exchange", lambda *_: recording.look())
    try:
        yield recording
        recording.look()
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)
