"""The cut lies between two moments, as near as can be to the wanted share; groups are disjoint and stay."""

from __future__ import annotations

import hashlib
from pathlib import Path

import ibis
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.datasets.engine import connect
from newfound.datasets.split import split_users


def split(events: dict[str, list[int]], config: SplitConfig, seed: int = 0) -> dict[str, tuple[str, int]]:
    """Group and cut of every user, from their events' times."""
    rows = [(user, time) for user, times in events.items() for time in times]
    table = ibis.memtable(pd.DataFrame(rows, columns=["user_id", "timestamp"]))
    found = connect().to_pyarrow(split_users(table, config, seed)).to_pylist()
    assert len(found) == len(events), "one row a user"
    return {row["user_id"]: (row["group"], row["cut"]) for row in found}


def naive_cut(times: list[int], future: float) -> int:
    """Every boundary tried in turn."""
    boundaries = sorted(set(times))[1:]
    if not boundaries:
        return times[0] + 1
    return min(boundaries, key=lambda cut: (abs(sum(time >= cut for time in times) - len(times) * future), -cut))


@pytest.mark.parametrize(
    ("times", "future", "cut"),
    [
        ([1, 2, 3, 4, 5], 0.2, 5),
        ([5, 1, 4, 2, 3], 0.4, 4),
        ([1, 2, 2, 2, 3], 0.2, 3),  # a session is never split
        ([1, 2, 2, 2, 2], 0.2, 2),  # the only boundary there is
        ([1, 1, 2, 2, 2, 3], 0.3, 3),  # 1 of 6 is nearer to 1.8 than 4 of 6
        ([1, 2, 3, 4], 0.375, 4),  # 1 and 2 of 4 are as near: the later
        ([7, 7, 7], 0.2, 8),  # a single moment: all of it is the past
        ([9], 0.5, 10),
    ],
)
def test_cut_by_hand(times: list[int], future: float, cut: int) -> None:
    assert split({"a": times}, SplitConfig(future=future))["a"][1] == cut
    assert split({"a": times}, SplitConfig(future=future, cut="global"))["a"][1] == cut


walks = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(walks, min_size=1, max_size=15), st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9]))
def test_cuts_are_the_nearest_boundaries(journeys: list[list[int]], future: float) -> None:
    events = {f"u{row}": times for row, times in enumerate(journeys)}
    for user, (_, cut) in split(events, SplitConfig(future=future)).items():
        assert cut == naive_cut(events[user], future)
        assert cut in events[user] or cut == max(events[user]) + 1
    whole = naive_cut([time for times in journeys for time in times], future)
    assert {cut for _, cut in split(events, SplitConfig(future=future, cut="global")).values()} == {whole}


def test_groups_go_by_seeded_hash_alone() -> None:
    config = SplitConfig(test_users=0.25, validation_users=0.1)
    few = {f"user {row}": [row, row + 1] for row in range(200)}
    found = {user: group for user, (group, _) in split(few, config, seed=5).items()}
    for user, group in found.items():
        lot = int(hashlib.sha256(f"5:{user}".encode()).hexdigest(), 16) / 16**64
        assert group == ("test" if lot < 0.25 else "validation" if lot < 0.35 else "train")
    more = split({**few, **{f"new {row}": [1, 5, 9] for row in range(50)}}, config, seed=5)
    assert {user: more[user][0] for user in few} == found
    assert {user: group for user, (group, _) in split(few, config, seed=6).items()} != found


def test_groups_have_about_the_wanted_size() -> None:
    users = {f"{row}": [0, 1] for row in range(4000)}
    groups = pd.Series([group for group, _ in split(users, SplitConfig()).values()]).value_counts(normalize=True)
    assert groups["test"] == pytest.approx(0.25, abs=0.02) and groups["validation"] == pytest.approx(0.1, abs=0.02)


def test_slice_is_cut_where_its_users_are(movielens: Path) -> None:
    data = Dataset(movielens)
    events = data.frame("interactions").merge(data.frame("users"), on="user_id")
    events["future"] = events["timestamp"] >= events["cut"]
    assert data.info["counts"]["past"] == (~events["future"]).sum()
    for _, journey in events.groupby("user_id"):
        times = journey["timestamp"].astype("int64").tolist()
        assert journey["cut"].astype("int64").iloc[0] == naive_cut(times, 0.2)
    assert (events.groupby(["user_id", "timestamp"])["future"].nunique() == 1).all()
    assert "leak" in data.info["split"]["note"]


def test_same_seed_same_files(movielens: Path, movielens_source: DataConfig, tmp_path: Path) -> None:
    load_interactions(movielens_source, SplitConfig(), 7, tmp_path / "again")
    for name in ("interactions.parquet", "items.parquet", "users.parquet", "dataset.json"):
        assert (tmp_path / "again" / name).read_bytes() == (movielens / name).read_bytes()


def test_active_users_and_items_alone(tmp_path: Path) -> None:
    """Without item z user c has too few events, without c item y has too few, without y user b has."""
    pairs = [(user, item) for user, items in {"a": "wx", "b": "wy", "c": "yz", "d": "wx"}.items() for item in items]
    events = pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(timestamp=range(len(pairs)))
    events.to_parquet(tmp_path / "events.parquet")
    config = DataConfig(
        loader="files", interactions=str(tmp_path / "events.parquet"), min_user_events=2, min_item_events=2
    )
    load_interactions(config, SplitConfig(), 1, tmp_path / "out")
    data = Dataset(tmp_path / "out")
    assert data.frame("users")["user_id"].tolist() == ["a", "d"]
    assert data.frame("items")["item_id"].tolist() == ["w", "x"]
    assert data.info["filter"]["events_left_out"] == 4
    assert data.info["counts"]["interactions"] == 4
