"""Every kept input of every fuzz target; `make fuzz` looks for others."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import kept, load, targets


@pytest.mark.parametrize("name", targets())
def test_kept_inputs_and_their_neighbours_crash_nothing(name: str) -> None:
    target, draw = load(name).Target(), random.Random(0)
    inputs = kept(name)
    assert inputs
    for data in inputs:
        target(data)
    for _ in range(50):
        changed = bytearray(draw.choice(inputs) or b"\0")
        for _ in range(draw.randrange(1, 6)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        target(bytes(changed[: draw.choice((len(changed), draw.randrange(len(changed) + 1)))]))
