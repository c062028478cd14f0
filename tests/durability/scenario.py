"""A scenario of a crash test: what is there, what is done, and what must hold whenever the machine stops meanwhile."""

from __future__ import annotations

import importlib
import pkgutil
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.durability.recorder import record
from tests.durability.replay import crash_states, write_tree


@dataclass(frozen=True)
class Scenario:
    """One thing that must be done whole or not at all.

    Attributes:
        name: for reports.
        prepare: makes what is there before, below a folder; all of it is on the disk.
        act: what is recorded.
        check: raises AssertionError for a folder as it was found after a crash. It is told whether `act` had returned
            by then: what was acknowledged must be there.
        slow: whether a check takes long, so that the test run draws fewer states.
    """

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    check: Callable[[Path, bool], None]
    slow: bool = False


@dataclass(frozen=True)
class Found:
    """What became of a scenario's crash states."""

    crash_points: int
    broken: list[str]


def scenarios() -> list[Scenario]:
    """Those of every module in `tests.durability.scenarios`; a new module is found by being there."""
    import tests.durability.scenarios as package

    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [one for name in modules for one in importlib.import_module(f"{package.__name__}.{name}").SCENARIOS]


def crash(scenario: Scenario, *, per_moment: int, at_most: int | None = None, seed: int = 0) -> Found:
    """Records a scenario once and checks it in every crash state, or in a draw of `at_most` of them."""
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="newfound-crash-", dir=place) as work:
        root = Path(work) / "root"
        root.mkdir()
        scenario.prepare(root)
        with record(root) as recording:
            scenario.act(root)
        draw = random.Random(seed)
        states = list(crash_states(recording, draw, per_moment))
        if at_most is not None and len(states) > at_most:
            ends = [one for one in states if one[0] == len(recording.operations)][: at_most // 4]
            states = [*draw.sample(states, at_most - len(ends)), *ends]
        shutil.rmtree(root)
        broken = []
        for moment, tree in states:
            write_tree(tree, root)  # at the same place, which files may name
            try:
                scenario.check(root, moment == len(recording.operations))
            except Exception as error:
                broken.append(f"{scenario.name}, operation {moment} of {len(recording.operations)}: {error!r}")
            shutil.rmtree(root)
        return Found(len(states), broken)


def everything(*, per_moment: int) -> Iterator[tuple[str, Found]]:
    """Every scenario with its outcome."""
    for one in scenarios():
        yield one.name, crash(one, per_moment=min(per_moment, 6) if one.slow else per_moment)
