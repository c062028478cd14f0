"""A sender's spool: a batch that was taken is there, whole; what a dead writer left is nobody's batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.explorer.spool import Spool
from tests.durability.scenario import Scenario


def _put(*batches: list[bytes]) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        spool = Spool(root / "spool", 1 << 20)
        spool.open()
        for batch in batches:
            spool.put(batch)

    return act


def _check(root: Path, done: bool) -> None:
    spool = Spool(root / "spool", 1 << 20)
    spool.open()
    found = [spool.read(file) for file in spool.files()]
    whole = [[b'{"id":"1"}', b'{"id":"2"}'], [b'{"id":"3"}'], [b'{"id":"4"}']]
    assert found == whole if done else found in (whole[:1], whole[:2], [whole[0], whole[2]], whole), found
    assert all(not entry.name.endswith(".part") for entry in spool.folder.iterdir())


SCENARIOS = [
    Scenario(
        "a spool", _put([b'{"id":"1"}', b'{"id":"2"}']), _put([b'{"id":"3"}'], [b'{"id":"4"}']), _check,
    )
]  # fmt: skip
