"""Checkpoints of the ranker: training goes on from the last one or from the one before."""

from __future__ import annotations

from pathlib import Path

from newfound.config import RankerConfig
from newfound.ranker.data import Sequences
from newfound.ranker.train import fit
from tests.durability.scenario import Scenario

RANKER = RankerConfig(dim=4, blocks=1, epochs=2, max_length=4)
SEQUENCES = Sequences.of([[0, 1, 2], [1, 2, 0], [2, 0, 1]] * 2)


def _train(root: Path, epochs: int) -> None:
    fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=epochs)


def _check_ranker(root: Path, done: bool) -> None:
    """It goes on to the end that it would have come to anyway."""
    if done:
        resumed: list[int] = []
        fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=2, watch=lambda n, _: resumed.append(n) or False)
        assert resumed == [], "the second epoch was acknowledged"
    else:
        found = fit(SEQUENCES, 3, RANKER, 1, folder=root / "ranker", epochs=2)
        assert len(found.curve) == 2


SCENARIOS = [
    Scenario("a ranker's checkpoint", lambda r: _train(r, 1), lambda r: _train(r, 2), _check_ranker, slow=True),
]
