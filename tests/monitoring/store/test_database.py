"""The store: what is one event and what is another, quotas, marks of the erased."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from monitoring.store.batches import Batch
from monitoring.store.database import Store
from monitoring.store.tables import imported, recommendations
from newfound.events import SlotEvent
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
NOW = datetime.now(UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = Store(request.getfixturevalue(f"{request.param}_url"), SECRET, quota=10)
    yield store
    store.close()


def test_a_repetition_is_the_same_event_and_nothing_else_is(store: Store) -> None:
    slots = (
        SlotEvent(position=0, item="ü", cluster="a", kind="novel", propensity=1 / 3, reason="table", score=0.1),
        SlotEvent(position=1, item="y", cluster="b", kind="familiar", propensity=1.0, reason="familiar"),
    )
    slate = parts.recommendation(1, at=NOW, slots=slots, latency_ms=1 / 3, seed=2**64 - 1, history_at=NOW)
    watched = parts.feedback(1, at=NOW, kind="watched", share=1 / 3)
    assert store.write([slate, watched]).new == {"recommendations": 1, "feedback": 1}
    assert store.write([slate, watched]).duplicates == 2
    other = slate.model_copy(update={"slots": slots[:1]})
    for changed in (other, watched.model_copy(update={"share": 0.5}), watched.model_copy(update={"user_id": "43"})):
        written = store.write([parts.feedback("beside"), changed])
        assert written.refused[0].status == 409 and [p["event"] for p in written.refused[0].problems] == [1]
    assert store.counts() == {"recommendations": 1, "feedback": 1, "inferences": 0}


def test_a_row_of_an_earlier_version_is_known_again(store: Store) -> None:
    """Fields that slots got since then have their defaults in it."""
    slate = parts.recommendation(1, at=NOW)
    store.write([slate])
    with store.engine.begin() as connection:
        text = connection.scalar(select(recommendations.c.slots))
        assert '"floor":0.0,' in text
        connection.execute(recommendations.update().values(slots=text.replace('"floor":0.0,', "")))
    assert store.write([slate]).duplicates == 1


def test_batches_of_one_commit_share_nothing_but_the_commit(store: Store) -> None:
    one, two, three = (parts.feedback(n, at=NOW) for n in range(3))
    clash = one.model_copy(update={"item": "another"})
    written = store.write_batches([Batch([one]), Batch([two, clash]), Batch([two, three]), Batch([three, one])])
    assert set(written.refused) == {1}, "what is new stays new although a refused batch brought it first"
    assert written.new == {"feedback": 3} and written.duplicates == 2
    assert store.counts()["feedback"] == 3


def test_a_batch_beyond_a_users_quota_is_refused_for_the_events_beyond_it(store: Store) -> None:
    day = NOW.replace(hour=12, minute=0)
    mine = [parts.feedback(n, at=day - timedelta(minutes=n)) for n in range(12)]
    written = store.write_batches([Batch(mine[:8]), Batch(mine[8:]), Batch(mine[8:10])])
    assert [problem["event"] for problem in written.refused[1].problems] == [2, 3] and set(written.refused) == {1}
    assert written.new == {"feedback": 10}
    assert store.write([parts.feedback("more", at=day)]).refused
    assert not store.write([parts.feedback("then", at=day - timedelta(days=1))]).refused
    assert not store.write([parts.feedback("other", at=day, user_id="43")]).refused
    assert store.write([mine[0]]).duplicates == 1


def test_what_an_erased_user_did_stays_away_by_every_way(store: Store) -> None:
    def did(name: str, minutes: float, **more: Any) -> Any:
        return parts.feedback(name, at=NOW + timedelta(minutes=minutes), user_id="gone", **more)

    store.write([did("early", -60), parts.recommendation(1, at=NOW, user_id="gone")])
    store.import_interactions([("gone", [("7", 1, 1.0, True)]), ("stays", [("7", 1, 1.0, True)])])
    until = NOW + timedelta(minutes=5)
    assert store.erase("gone", until) == {"recommendations": 1, "feedback": 1, "pasts": 1}
    assert store.write([did("spooled", -1), did("skewed", 4)]).erased == 2
    # A moment that was corrected says nothing of when it was: the event may be from before.
    late = did("corrected", 20)
    assert store.write_batches([Batch([late], frozenset({late.id}))]).erased == 1
    other = parts.feedback("other", at=NOW + timedelta(minutes=20))
    assert store.write_batches([Batch([other], frozenset({other.id}))]).new == {"feedback": 1}
    # An import of the data set that the user was in brings the others, and what the user did since.
    ms = int(until.timestamp() * 1000)
    assert store.import_interactions([("gone", [("7", 1, 1.0, True)]), ("stays", [("8", 1, 1.0, True)])]) == 1
    with store.engine.connect() as connection:
        assert [row.user_id for row in connection.execute(select(imported))] == ["stays"]
    assert store.import_interactions([("gone", [("7", 1, 1.0, True), ("9", ms + 1, 1.0, True)])]) == 1
    with store.engine.connect() as connection:
        query = select(imported.c.events).where(imported.c.user_id == "gone")
        assert connection.scalar(query) == f'[["9",{ms + 1},1.0,true]]'
    assert store.write([did("new-start", 6)]).new == {"feedback": 1}


def test_old_events_go_in_steps_that_nobody_waits_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.store.database._DELETED", 3)
    store.write([parts.feedback(n, user_id=str(n), at=NOW - timedelta(days=n)) for n in range(12)])
    assert store.retain(4, NOW)["feedback"] == 7
    assert store.counts()["feedback"] == 5
