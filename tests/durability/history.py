"""Publishers, people who roll back and people who promote, all at once and killed at any moment: one line of moves.

Each process notes what was acknowledged to it. Afterwards the moves of `current`, by their numbers, must be one line:
no number twice, and each move's parent the release of the move before. What was acknowledged last is what serves, or
something that came after it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from newfound.errors import ReleaseError
from newfound.release import store
from newfound.release.pointer import Pointer, read_pointer
from newfound.release.storage import Storage
from tests.release.gates import HELD


@dataclass(frozen=True)
class Moves:
    """What the processes were told, and what it came to."""

    acknowledged: int
    kills: int
    lost: int
    twice: int


def history(seconds: float, *, processes: int = 4, seed: int = 0) -> Moves:
    """Lets the processes work and kills one after the other, which is then started again."""
    draw = random.Random(seed)
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="newfound-history-", dir=place) as name:
        folder, notes = Path(name), Path(name) / "notes"
        notes.mkdir()
        _publish(folder / "releases", folder / "work", "first")
        kills, running = 0, [_start(folder, notes, n, draw.random()) for n in range(processes)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(draw.random() * 0.2)
            at = draw.randrange(processes)
            _kill(running[at])
            kills += 1
            running[at] = _start(folder, notes, processes + kills, draw.random())
        for child in running:
            _kill(child)
        last = read_pointer(Storage(str(folder / "releases")))
        assert last is not None
        store.verify(str(folder / "releases"), last.release)
        return _judge(notes, last, kills)


def _judge(notes: Path, last: Pointer, kills: int) -> Moves:
    told = [Pointer.model_validate_json(line) for file in notes.iterdir() for line in file.read_text().splitlines()]
    by_number: dict[int, set[Pointer]] = {}
    for one in [*told, last]:
        by_number.setdefault(one.move, set()).add(one)
    twice = sum(len(ones) - 1 for ones in by_number.values())
    torn = sum(
        one.parent != before.release
        for number, ones in by_number.items()
        for one in ones
        for before in by_number.get(number - 1, ())
    )
    return Moves(len(told), kills, torn + sum(one.move > last.move for one in told), twice)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _start(folder: Path, notes: Path, number: int, seed: float) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _work(folder / "releases", folder / f"work-{number}", notes / f"{number}.jsonl", random.Random(seed))
    finally:
        os._exit(1)


def _work(root: Path, work: Path, note: Path, draw: random.Random) -> None:
    """Publishes, rolls back and promotes, and notes the pointer that each move was acknowledged with."""
    move: Callable[..., Pointer] = store.move  # type: ignore[attr-defined]

    def noted(*args: object, **kwargs: object) -> Pointer:
        moved = move(*args, **kwargs)
        with note.open("a") as file:
            file.write(moved.model_dump_json() + "\n")
        return moved

    store.move = noted  # type: ignore[attr-defined]
    while True:
        made = [one.id for one in store.list_releases(str(root))][-6:]
        try:
            kind = draw.random()
            if kind < 0.6:
                _publish(root, work, json.dumps([os.getpid(), draw.random()]))
            elif kind < 0.8:
                store.rollback(str(root), draw.choice(made))
            else:
                store.promote(str(root), draw.choice(made))
        except ReleaseError:
            continue  # somebody else was first


def _publish(root: Path, work: Path, text: str) -> None:
    work.mkdir(exist_ok=True)
    (work / "part.txt").write_text(text)
    parts = {"part.txt": work / "part.txt"}
    store.publish(parts, str(root), lineage={"text": text}, measures={}, fits={}, gates=HELD)
