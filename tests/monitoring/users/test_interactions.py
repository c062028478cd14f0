"""Interactions: what feedback amounts to, in Python and in SQL alike, and what was imported."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.report.windows import OUTCOMES
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.users.interactions import fold, interactions_of, read_interactions, write_interactions
from newfound import schema
from newfound.errors import DataError
from newfound.events import FEEDBACK_KINDS
from tests.monitoring import servers as parts

CONFIG = MonitoringConfig()
START = datetime(2026, 3, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def ms(minutes: float) -> int:
    return int(at(minutes).timestamp() * 1000)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, parts.SECRET.encode())
    yield store
    store.close()


def _folded(store: Store) -> list[tuple[str, int, float, bool]]:
    return interactions_of(store, ["42"], CONFIG)["42"]


def test_one_interaction_for_all_that_was_done_with_an_item_of_a_slate(store: Store) -> None:
    store.write(
        [
            parts.feedback(1, at=at(1), recommendation_id="r1", kind="shown"),
            parts.feedback(2, at=at(2), recommendation_id="r1", kind="clicked"),
            parts.feedback(3, at=at(3), recommendation_id="r1", kind="watched", share=0.9),
            parts.feedback(4, at=at(4), item="51", recommendation_id="r1", kind="watched", share=0.2),
            parts.feedback(5, at=at(5), item="52", recommendation_id="r1", kind="liked"),
            parts.feedback(6, at=at(6), item="52", recommendation_id="r1", kind="dismissed"),
            parts.feedback(7, at=at(7), item="53", kind="shown"),  # seen, not consumed
            parts.feedback(8, at=at(8), recommendation_id="r2", kind="liked"),  # the same item on another day
        ]
    )
    assert _folded(store) == [
        ("50", ms(2), pytest.approx(0.9), True),
        ("51", ms(4), pytest.approx(0.2), False),
        ("52", ms(5), 0.0, False),
        ("50", ms(8), 1.0, True),
    ]


def test_late_events_take_their_place_and_the_past_comes_first(store: Store) -> None:
    store.import_interactions([("42", [("7", ms(-10), 0.8, True), ("8", ms(5), 0.2, False)])])
    store.write([parts.feedback(1, at=at(10), item="3")])
    store.write([parts.feedback(2, at=at(2), item="2"), parts.feedback(1, at=at(10), item="3")])
    assert [event[0] for event in _folded(store)] == ["7", "2", "8", "3"]
    assert fold([], CONFIG) == []


def test_the_past_is_imported(tiny: Path, sqlite_url: str) -> None:
    pasts = dict(read_interactions(tiny))
    assert len(pasts) == 8 and all(len(events) == 10 for events in pasts.values())
    assert [event[0] for event in pasts["u0"]][:3] == ["i0", "i1", "i2"]
    assert all(
        first[1] < second[1] for events in pasts.values() for first, second in zip(events, events[1:], strict=False)
    )
    with pytest.raises(DataError, match=r"interactions\.parquet"):
        list(read_interactions(tiny / "nowhere"))


def test_training_learns_from_known_slates_alone_and_histories_from_everything(store: Store, tmp_path: Path) -> None:
    store.write([parts.recommendation(1, user_id="42"), parts.recommendation(2, user_id="43")])
    for number, named in enumerate(("r1", "r2", "never-made", None)):
        store.write([parts.feedback(number, at=at(number), item=str(number), recommendation_id=named)])
    out = tmp_path / "interactions.parquet"
    assert write_interactions(store, CONFIG, str(out)) == 2
    assert pq.read_table(out)["item_id"].to_pylist() == ["0", "3"]
    assert [event[0] for event in _folded(store)] == ["0", "1", "2", "3"]


# Few users, items, slates and moments, so that events meet: ties in time, both sides of midnight, repeated kinds.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.sampled_from("ij"),
        st.sampled_from([None, "r", "s"]),
        st.sampled_from(FEEDBACK_KINDS),
        st.floats(0, 1),
        st.sampled_from([0, 1, 1000, 86_399_999_999, 86_400_000_000, 86_400_000_001]),
        st.text("ab:9", min_size=1, max_size=3),
    ),
    max_size=14,
    unique_by=lambda event: event[-1],
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.floats(0, 1), st.floats(0, 1, exclude_min=True))
def test_reports_and_histories_mean_the_same_by_feedback(events: Any, clicked: float, positive: float) -> None:
    config = MonitoringConfig(clicked_engagement=clicked, positive_at=positive)
    names = ("user_key", schema.ITEM, "recommendation_id", "kind", "share", "moment", "event_id")
    rows = [
        {**dict(zip(names, event, strict=True)), "share": event[4] if event[3] == "watched" else None}
        for event in events
    ]
    for row in rows:
        row["moment"] += micros(START)
    folded = set()
    for user in "uv":
        mine = [
            type("Row", (), {**row, "at": row["moment"], "id": row["event_id"], "item": row[schema.ITEM]})
            for row in rows
            if row["user_key"] == user
        ]
        folded |= {(user, *interaction) for interaction in fold(mine, config)}
    types = [pa.string()] * 4 + [pa.float64(), pa.timestamp("us", tz="UTC"), pa.string()]
    columns = pa.schema(list(zip(names, types, strict=True)))
    with duckdb.connect() as db:
        db.register("feedback", pa.Table.from_pylist(rows, schema=columns))
        db.execute(OUTCOMES, {"since": START, "positive_at": positive, "clicked": clicked})
        query = (
            "SELECT user_key, item_id, epoch_ms(moment), engagement, positive FROM outcomes WHERE moment IS NOT NULL"
        )
        assert set(db.execute(query).fetchall()) == folded
