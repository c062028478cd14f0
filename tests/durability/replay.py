"""Crash states: every tree that a disk may hold when the machine stops at some moment of a recording.

The disk keeps what was flushed. Of everything else, any part may be there: a name that appeared later without one that
appeared earlier, a name without its file's content, half of a content. Names that one call changes together are there
together. This is the abstract model of ALICE (Pillai and others, OSDI 2014) without any file system's further promises.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.durability.recorder import Content, Flush, Names, Node, Operation, Recording, Tree


def crash_states(recording: Recording, draw: random.Random, per_moment: int) -> Iterator[tuple[int, Tree]]:
    """Different trees that may be found after a crash.

    Args:
        recording: what was done.
        draw: of the mixtures.
        per_moment: mixtures tried at each moment, beside the systematic ones.

    Yields:
        How many operations had been called for, and the tree.
    """
    seen: set[tuple[bytes, bool]] = set()
    end = len(recording.operations)
    for moment in range(end + 1):
        for tree in _states_at(recording.start, recording.operations[:moment], draw, per_moment):
            # At the end more is asked for: what was harmless before is a loss then.
            key = (_digest(tree), moment == end)
            if key not in seen:
                seen.add(key)
                yield moment, tree


def write_tree(tree: Tree, folder: Path) -> None:
    """Makes a tree real."""
    folder.mkdir()
    waiting: list[tuple[Node, Path]] = [(0, folder)]
    while waiting:
        parent, place = waiting.pop()
        for (above, name), node in tree.names.items():
            if above != parent:
                continue
            content, path = tree.content.get(node, b""), place / name
            if content is None:
                path.mkdir()
                waiting.append((node, path))
            elif isinstance(content, str):
                path.symlink_to(content)
            else:
                path.write_bytes(content)


def _states_at(start: Tree, operations: Sequence[Operation], draw: random.Random, per_moment: int) -> Iterator[Tree]:
    kept = _kept(operations)
    loose = [at for at, one in enumerate(operations) if isinstance(one, Names) and at not in kept]
    everything = set(loose)
    choices: list[tuple[set[int], str]] = [(everything, "new"), (set(), "old"), (everything, "old"), (set(), "new")]
    choices += [(everything - {one}, "new") for one in loose]
    choices += [({one}, "new") for one in loose]
    choices += [(everything, "half"), (everything, "zeros")]
    choices += [({one for one in loose if draw.random() < 0.5}, "mixed") for _ in range(per_moment)]
    for names, contents in choices:
        yield _build(start, operations, kept, names, contents, draw)


def _kept(operations: Sequence[Operation]) -> set[int]:
    """Which operations a later flush of the file, or of a folder that a name is in, has brought to the disk."""
    kept, flushed = set(), set()
    for at in range(len(operations) - 1, -1, -1):
        one = operations[at]
        if isinstance(one, Flush):
            flushed.add(one.node)
            continue
        nodes = {one.node} if isinstance(one, Content) else {folder for folder, _ in one.changes}
        if nodes & flushed:
            kept.add(at)
    return kept


def _build(
    start: Tree, operations: Sequence[Operation], kept: set[int], names: set[int], contents: str, draw: random.Random
) -> Tree:
    """The tree with what was flushed, some names beside it, and contents in one way."""
    tree = start.copy()
    for at, one in enumerate(operations):
        if isinstance(one, Names) and (at in names or at in kept):
            for entry, node in one.changes.items():
                tree.names.pop(entry, None)
                if node is not None:
                    tree.names[entry] = node
        elif isinstance(one, Content):
            if not isinstance(one.content, bytes) or at in kept:
                tree.content[one.node] = one.content
                continue
            before = tree.content.get(one.node, b"")
            old = before if isinstance(before, bytes) else b""
            way = draw.choice(_WAYS) if contents == "mixed" else contents
            tree.content[one.node] = _torn(old, one.content, way, draw)
    return tree


_WAYS = ("new", "old", "half", "zeros", "mixed")


def _torn(old: bytes, new: bytes, way: str, draw: random.Random) -> bytes:
    if way == "old":
        return old
    if way == "half":
        return new[: len(new) // 2]
    if way == "zeros":  # the length is there, and the content is not
        return bytes(len(new))
    if way == "mixed":
        edge = draw.randrange(len(new) + 1)
        return new[:edge] + old[edge : len(new)]
    return new


def _digest(tree: Tree) -> bytes:
    """Of what can be reached from the root."""
    found, waiting = hashlib.blake2b(), [(0, "")]
    by_folder: dict[Node, list[tuple[str, Node]]] = {}
    for (folder, name), node in tree.names.items():
        by_folder.setdefault(folder, []).append((name, node))
    while waiting:
        parent, place = waiting.pop()
        for name, node in sorted(by_folder.get(parent, ())):
            content = tree.content.get(node, b"")
            found.update(repr((place, name, content)).encode("utf-8", "surrogateescape"))
            if content is None:
                waiting.append((node, f"{place}/{name}"))
    return found.digest()
