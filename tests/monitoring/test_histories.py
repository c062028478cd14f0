"""One short history of everything at once; `make durability` has long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.collector_history import run


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_history_of_faults_loses_nothing(
    kind: str, tmp_path: Path, redis_port: int, request: pytest.FixtureRequest
) -> None:
    history, figures = run(tmp_path, request.getfixturevalue(f"{kind}_url"), redis_port, batches=15, seed=1)
    assert {name: figures[name] for name in ("lost", "twice", "returned", "stale")} == dict.fromkeys(
        ("lost", "twice", "returned", "stale"), 0
    ), (figures, history.faults)
    assert figures["events"] > 100 and len(history.published) == 6
