"""Measures of a data set's shape, on data made by hand and on the sets that were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import load_interactions
from newfound.datasets.generated import calibration
from newfound.datasets.generated.calibration import RANKS, head_curve, load_calibration, measure, split_by


def test_a_head_curve_by_hand() -> None:
    curve = dict(zip(RANKS, head_curve(np.array([1, 6, 1, 2])), strict=True))
    assert curve[0.25] == 0.6 and curve[0.5] == 0.8 and curve[1.0] == 1
    assert curve[0.125] == 0  # not even one of four


def test_shares_keep_their_head_curve_at_any_size() -> None:
    curve = head_curve(1 / np.arange(1, 2001) ** 0.8)
    for n in (100, 2000, 50_000):
        shares = split_by(curve, n)
        assert shares.sum() == pytest.approx(1) and (np.diff(shares) <= 0).all()
        found = dict(zip(RANKS, head_curve(shares), strict=True))
        assert [found[rank] for rank in (0.25, 0.5, 0.8)] == pytest.approx(
            [dict(zip(RANKS, curve, strict=True))[rank] for rank in (0.25, 0.5, 0.8)], abs=0.01
        )


def test_journeys_by_hand(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users n of `tiny` take items n, n + 1, ...; interests are runs of three items, branches of six."""
    monkeypatch.setattr(calibration, "FEW", 1)
    items = np.arange(12)
    interests = pd.DataFrame({"item_id": [f"i{i}" for i in items], "cluster": items // 3, "parent": items // 6})
    found = measure(tiny, interests)
    # The second event opens for users 2 and 5 of eight; of the third and fourth, one does for all others.
    assert found.opening[:2] == (0.25, 6 / 16)
    assert found.staying == 1.0  # nobody comes back
    assert found.gaps[1] == found.gaps[-1] == 86_400 and found.span == 9 * 86_400
    assert found.ratings == ((0.0, 0.3), (1.0, 0.7)) and found.positive_at == 1.0


def test_the_constants_are_those_that_are_measured(tmp_path: Path) -> None:
    """All that does not depend on clusters, on the set that the environment carries."""
    data = DataConfig(min_user_events=5)
    load_interactions(data, SplitConfig(), 7, tmp_path / "dataset")
    items = pd.read_parquet(tmp_path / "dataset" / "items.parquet")["item_id"]
    found = measure(tmp_path / "dataset", pd.DataFrame({"item_id": items, "cluster": "a", "parent": "b"}))
    kept = load_calibration("movielens")
    for name in ("popularity", "activity", "gaps", "span", "ratings", "positive_at", "quality", "mildness", "words"):
        assert getattr(found, name) == getattr(kept, name), name
