"""Slates for everybody: the same as when asked one by one, in bounded memory, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from newfound.config import BatchConfig
from newfound.errors import DataError
from newfound.recommend.batch import seed_of, write_slates
from newfound.recommend.catalogue import UserHistory
from newfound.recommend.decision import PlannerQuery
from newfound.recommend.recommender import Recommender
from newfound.release.takedown import Takedown
from newfound.schema import HISTORIES, INTERESTS, RECOMMENDED
from tests.serving.synthetic import World, histories, history_table, publish_world

WORLD = World(holes=40)
USERS = 57


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("batch")
    return base / "releases" / publish_world(WORLD, base / "releases", base / "parts").id


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.open(folder)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return sorted(histories(WORLD, USERS, 60), key=lambda row: str(row["user_id"]))


@pytest.fixture(scope="module")
def source(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histories")
    pq.write_table(history_table(rows).cast(HISTORIES), folder / "histories.parquet", row_group_size=20)
    return folder


def interests(file: Path, digest: str, seen: dict[str, list[str]]) -> Path:
    rows = [
        {"user_id": user, "event_timestamp": 0, "seen_leaves": leaves, "clusters_digest": digest}
        for user, leaves in sorted(seen.items())
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERESTS), file)
    return file


def slates(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """By user, without what the size of a run may change by its last bits: scores, and all but their first digits."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in pq.read_table(file).to_pylist():
        assert row["position"] == len(found.setdefault(row["user_id"], []))
        shown = ("item_id", "slot", "cluster", "because", "reason", "seed")
        found[row["user_id"]].append((*(str(row[name]) for name in shown), round(row["propensity"], 3)))
    return found


def test_everyone_gets_the_slate_that_a_request_would_get(recommender, rows, source, tmp_path):
    told = write_slates(recommender, source, tmp_path / "slates.parquet", BatchConfig(seed=7, users_at_once=10))
    table = pq.read_table(tmp_path / "slates.parquet")
    assert table.schema == RECOMMENDED
    assert told["users"] == USERS and told["slots"] == len(table) == 10 * USERS and told["short_slates"] == 0
    assert told["novel_share"] == pytest.approx(sum(s == "novel" for s in table["slot"].to_pylist()) / len(table))
    written = table.to_pylist()
    assert [row["user_id"] for row in written[::10]] == [row["user_id"] for row in rows]
    for at, row in enumerate(rows):
        history = UserHistory(row["item_ids"], row["engagements"], row["positives"], row["times"][-1])
        alone = recommender.recommend(history, seed=seed_of(7, row["user_id"]))
        mine = written[10 * at : 10 * at + 10]
        assert {one["release"] for one in mine} == {alone.release} and {one["seed"] for one in mine} == {alone.seed}
        for one, entry in zip(mine, alone.items, strict=True):
            expected = entry.model_dump(mode="json")
            assert one["score"] == pytest.approx(expected.pop("score"), rel=1e-4, abs=1e-5)
            assert one["item_id"] == expected.pop("item")
            # In other company the encoder's last bits differ, and stored engagements are single precision.
            assert one["propensity"] == pytest.approx(expected.pop("propensity"), rel=1e-4, abs=1e-6)
            assert {name: one[name] for name in expected} == {**expected, "because": list(entry.because)}


def test_runs_and_shards_change_nothing(recommender, source, tmp_path):
    write_slates(recommender, source, tmp_path / "all.parquet", BatchConfig(k=6, novel=2))
    whole = slates(tmp_path / "all.parquet")
    seen: list[int] = []
    told = write_slates(
        recommender, source, tmp_path / "7.parquet", BatchConfig(k=6, novel=2, users_at_once=7), progress=seen.append
    )
    assert slates(tmp_path / "7.parquet") == whole and seen[-1] == told["users"] == USERS and len(seen) == 9
    parts: dict[str, Any] = {}
    for shard in range(3):
        config = BatchConfig(k=6, novel=2, users_at_once=5, shard=shard, shards=3)
        told = write_slates(recommender, source, tmp_path / f"part{shard}.parquet", config)
        mine = slates(tmp_path / f"part{shard}.parquet")
        assert told["users"] == len(mine) == USERS // 3 and not set(mine) & set(parts)
        parts |= mine
    assert parts == whole
    write_slates(recommender, source, tmp_path / "other.parquet", BatchConfig(k=6, novel=2, seed=1))
    assert slates(tmp_path / "other.parquet") != whole


def test_what_was_seen_before_the_history_is_never_novel(recommender, rows, source, tmp_path):
    digest = recommender.catalogue.clusters.digest
    history = rows[3]["item_ids"]
    past, _ = recommender.catalogue.past_of(UserHistory(history, [1.0] * len(history), [True] * len(history)))
    unseen = [cluster for cluster in recommender.catalogue.interface if cluster not in past.seen]
    leaves = [f"l{cluster[1:]}.0" for cluster in unseen[:-1]]
    user = rows[3]["user_id"]
    file = interests(tmp_path / "seen.parquet", digest, {"a": ["l0.0"], user: leaves, "zz": []})
    config = BatchConfig(k=8, novel=8)
    write_slates(recommender, source, tmp_path / "with.parquet", config, interests=file)
    write_slates(recommender, source, tmp_path / "without.parquet", config)
    with_them, without = slates(tmp_path / "with.parquet"), slates(tmp_path / "without.parquet")
    assert {cluster for _, slot, cluster, *_ in with_them[user] if slot == "novel"} == {unseen[-1]}
    assert {name for name in without if without[name] != with_them[name]} == {user}
    stale = interests(tmp_path / "stale.parquet", "of other clusters", {user: leaves})
    write_slates(recommender, source, tmp_path / "stale.out", config, interests=stale)
    assert slates(tmp_path / "stale.out") == without


def test_what_was_taken_down_is_in_no_slate(folder, source, tmp_path):
    write_slates(Recommender.open(folder), source, tmp_path / "a.parquet", BatchConfig())
    shown = pq.read_table(tmp_path / "a.parquet")
    items, clusters = frozenset(shown["item_id"].to_pylist()[:3]), frozenset({"c4", shown["cluster"][9].as_py()})
    held = Recommender.open(folder, takedown=Takedown(items, clusters))
    write_slates(held, source, tmp_path / "b.parquet", BatchConfig())
    left = pq.read_table(tmp_path / "b.parquet")
    assert not items & set(left["item_id"].to_pylist()) and not clusters & set(left["cluster"].to_pylist())
    assert clusters & set(shown["cluster"].to_pylist())


class Planner:
    """Knows one answer, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[PlannerQuery] = []

    def answers(self, asks: Sequence[PlannerQuery]) -> list[dict[str, float]]:
        self.asked.extend(asks)
        return [{"c9": -0.01, "c11": -5.0} for _ in asks]


def test_the_planner_is_asked_each_question_once(folder, tmp_path):
    catalogue = Recommender.open(folder).catalogue
    rows = [
        {
            "user_id": f"u{number}",
            "event_timestamp": 1,
            "item_ids": [f"i{number % 2}.1", f"i{number % 2}.2"],
            "times": [1, 2],
            "engagements": [1.0, 1.0],
            "positives": [True, True],
        }
        for number in range(6)
    ]
    pq.write_table(history_table(rows).cast(HISTORIES), tmp_path / "histories.parquet")
    planner = Planner()
    asking = Recommender(catalogue, None, planner)
    told = write_slates(asking, tmp_path, tmp_path / "out.parquet", BatchConfig(k=6, novel=2, users_at_once=2))
    assert planner.asked == [PlannerQuery(("c0",)), PlannerQuery(("c1",))]
    assert told["planner_slots"] >= 8
    told = write_slates(asking, tmp_path, tmp_path / "out.parquet", BatchConfig(k=6, novel=2, planner=False))
    assert told["planner_slots"] == 0 and len(planner.asked) == 2


def test_a_file_appears_whole_or_not_at_all(recommender, rows, tmp_path):
    out = tmp_path / "slates.parquet"
    disorder = [*rows[:30], rows[2], *rows[30:]]
    pq.write_table(history_table(disorder).cast(HISTORIES), tmp_path / "histories.parquet")
    with pytest.raises(DataError, match="column 'user_id', row 31: .* expected users in order"):
        write_slates(recommender, tmp_path, out, BatchConfig(users_at_once=4))
    assert [file.name for file in tmp_path.iterdir()] == ["histories.parquet"]
    (tmp_path / "histories.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match="histories.parquet: cannot be read"):
        write_slates(recommender, tmp_path, out, BatchConfig())
    with pytest.raises(DataError, match="nowhere"):
        write_slates(recommender, tmp_path / "nowhere", out, BatchConfig())
    assert not out.exists()


def test_nobody_makes_an_empty_file(recommender, tmp_path):
    pq.write_table(HISTORIES.empty_table(), tmp_path / "histories.parquet")
    told = write_slates(recommender, tmp_path, tmp_path / "out.parquet", BatchConfig())
    assert told["users"] == told["novel_share"] == 0
    assert pq.read_table(tmp_path / "out.parquet").schema == RECOMMENDED


def test_a_shard_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="shard: expected less than shards"):
        BatchConfig(shard=2, shards=2)
