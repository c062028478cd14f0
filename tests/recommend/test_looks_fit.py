"""Weights fitted to looks: what was shown often is not what was liked."""

from __future__ import annotations

import numpy as np
import pytest

from newfound.recommend.looks_fit import fit_looks


def test_planted_weights_are_found() -> None:
    rng = np.random.default_rng(3)
    terms = {"ranker": rng.standard_normal(20_000), "popularity": 5 * rng.standard_normal(20_000)}
    chance = 1 / (1 + np.exp(-(-1.0 + 0.8 * terms["ranker"] - 0.1 * terms["popularity"])))
    found = fit_looks(terms, rng.random(20_000) < chance)
    assert found == pytest.approx({"ranker": 0.8, "popularity": -0.1}, abs=0.05)


def test_exposure_teaches_nothing() -> None:
    """Popular items are shown ten times as often and liked no more: their weight is nothing."""
    rng = np.random.default_rng(4)
    popular = rng.random(20_000) < 10 / 11
    good = rng.random(20_000) < 0.5
    found = fit_looks(
        {"popular": popular.astype(float), "good": good.astype(float)}, rng.random(20_000) < 0.2 + 0.4 * good
    )
    assert abs(found["popular"]) < 0.15 and found["good"] > 1.5


@pytest.mark.parametrize("liked", [np.zeros(0, dtype=bool), np.ones(5, dtype=bool), np.zeros(5, dtype=bool)])
def test_looks_that_tell_nothing_weigh_nothing(liked: np.ndarray) -> None:
    assert fit_looks({"ranker": np.arange(len(liked), dtype=float)}, liked) == {"ranker": 0.0}
