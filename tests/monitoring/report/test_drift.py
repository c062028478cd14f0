"""Drift: distances by hand, chance at its stated rate, modest drifts seen, the same bits in any process."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, wasserstein_distance

from monitoring.report.drift import FALSE_ALARMS, OTHERS, chance, jensen_shannon, merge_rare
from monitoring.report.evidently import drift_page

STOP = datetime(2026, 3, 11, tzinfo=UTC)
NUMBERS = ("score", "history_length", "history_age_hours")
CATEGORIES = ("slot", "cluster", "reason", "positive")
SLOTS = 10


class World:
    """People who differ in what they are shown and do: a user's slates resemble each other."""

    def __init__(self, seed: int, users: int, clusters: int = 60) -> None:
        self.rng = np.random.default_rng([seed, users])
        self.clusters = clusters
        self.tastes = self.rng.integers(0, clusters, (users, 3))
        self.likes = self.rng.beta(2, 5, users)
        self.length = self.rng.integers(5, 500, users)
        self.level = self.rng.normal(size=users)

    def window(self, users: range, slates: int = 2, *, liked: float = 1.0, score: float = 0.0) -> pd.DataFrame:
        """Impressions of some users; `liked` and `score` are drifts."""
        rng = self.rng
        who = np.repeat(np.arange(users.start, users.stop), slates)
        of = np.repeat(who, SLOTS)
        rows = len(of)
        taste = self.tastes[of, rng.integers(0, 3, rows)]
        return pd.DataFrame(
            {
                "user_key": [f"{user:032x}" for user in of],
                "slot": np.where(rng.random(rows) < 0.3, "novel", "familiar"),
                "cluster": np.where(rng.random(rows) < 0.7, taste, (rng.random(rows) ** 2 * self.clusters).astype(int)),
                "reason": np.where(rng.random(rows) < 0.9, "table", "planner"),
                "positive": (rng.random(rows) < self.likes[of] * liked).astype(int),
                "score": self.level[of] * 0.7 + rng.normal(size=rows) + score,
                "history_length": self.length[of] + np.repeat(rng.integers(0, 10, len(who)), SLOTS),
                "history_age_hours": np.repeat(rng.exponential(30, len(who)), SLOTS),
            }
        )


def passed(current: pd.DataFrame, reference: pd.DataFrame) -> set[str]:
    """Columns that lie further apart than chance explains, without Evidently, which is slow."""
    now, before = current.copy(), reference.copy()
    for name in CATEGORIES:
        now[name], before[name] = merge_rare(now[name], before[name])
    bounds = chance(now, before, NUMBERS, CATEGORIES)
    found = {name: wasserstein_distance(now[name], before[name]) / before[name].std(ddof=0) for name in NUMBERS}
    found |= {name: jensen_shannon(now[name], before[name]) for name in CATEGORIES}
    return {name for name, value in found.items() if value > bounds[name]}


def test_jensen_shannon_by_hand() -> None:
    same, other = pd.Series(["a", "a", "b", "b"]), pd.Series(["c", "d"])
    assert jensen_shannon(same, same) == 0
    assert jensen_shannon(same, other) == pytest.approx(math.sqrt(math.log(2)))
    half = pd.Series(["a", "c"])  # (1/2, 1/2, 0) and (1/2, 0, 1/2), whose middle is (1/2, 1/4, 1/4)
    assert jensen_shannon(same, half) == pytest.approx(math.sqrt(math.log(2) / 2))


def test_rare_categories_are_one() -> None:
    now, before = pd.Series([1] * 15 + [2] * 15 + [3]), pd.Series([1] * 5 + [2] * 4 + [4])
    merged = merge_rare(now, before)
    assert merged[0].tolist() == ["1"] * 15 + [OTHERS] * 16 and merged[1].tolist() == ["1"] * 5 + [OTHERS] * 5


# Windows of the same users, of others, and of a few that many others are held against.
COMPARED = {
    "the same": (range(60), range(60)),
    "others": (range(60), range(60, 120)),
    "some": (range(60), range(40, 240)),
}


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compared", COMPARED.values(), ids=COMPARED.keys())
def test_chance_passes_at_its_stated_rate(compared: tuple[range, range], times: int) -> None:
    alarms = 0
    for seed in range(times):
        world = World(seed, 400)
        alarms += bool(passed(world.window(compared[0]), world.window(compared[1])))
    # So many or more would come of twice the stated rate once in a thousand.
    assert alarms < binom.isf(0.001, times, 2 * FALSE_ALARMS), f"{alarms} false alarms in {times} reports"


@pytest.mark.parametrize("seed", range(3))
def test_modest_drifts_are_seen(seed: int, tmp_path: Path) -> None:
    world = World(seed, 600)
    before = world.window(range(300, 600))
    names = [f"drift.{name}" for name in (*NUMBERS, *CATEGORIES)]
    still = drift_page(world.window(range(300)), before, tmp_path / "still.html", STOP)[1]
    assert still["drift_share"] == 0 and set(names) <= set(still)
    for moved, column in (({"liked": 0.5}, "positive"), ({"score": 0.4}, "score")):
        now = world.window(range(300), **moved)  # type: ignore[arg-type]
        assert passed(now, before) == {column}
        found = drift_page(now, before, tmp_path / "moved.html", STOP)[1]
        assert found["drift_share"] == pytest.approx(1 / 7)


def test_a_single_user_tells_nothing(tmp_path: Path) -> None:
    world = World(0, 100)
    assert drift_page(world.window(range(1), 20), world.window(range(100)), tmp_path / "x.html", STOP) == (None, {})
    now, before = world.window(range(100)), world.window(range(100))
    now.loc[now["user_key"] != now["user_key"].iloc[0], "score"] = np.nan
    assert "drift.score" not in drift_page(now, before, tmp_path / "x.html", STOP)[1]


def test_distances_are_the_same_in_any_process(tmp_path: Path) -> None:
    """Sets of strings are ordered by hashes, which differ from process to process, and here from naming to naming."""
    world = World(1, 3000, clusters=700)
    now, before = world.window(range(1000)), world.window(range(1000, 3000))
    for frame in (now, before):
        frame["cluster"] = frame["cluster"].map("c{:03d}".format)
    snapshot, found = drift_page(now, before, tmp_path / "drift.html", STOP)
    assert snapshot is not None and "jensenshannon" not in json.dumps(snapshot.dict()), "Evidently's own is not used"
    named = [
        jensen_shannon(*merge_rare(prefix + now["cluster"], prefix + before["cluster"]))
        for prefix in "abcdefghijklmnopqrst"
    ]
    assert set(named) == {found["drift.cluster"]}
