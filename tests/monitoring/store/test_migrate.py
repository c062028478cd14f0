"""Migrations: an unversioned database is taken over, upgraded and downgraded, under load, without a lost event."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select

from monitoring.report.export import export
from monitoring.store.database import Store
from monitoring.store.engine import lock_writers, open_engine
from monitoring.store.migrate import downgrade, head, revision_of, upgrade
from monitoring.store.rows import row_of
from monitoring.store.tables import decisions, erased, feedback, imported, metadata, progress, recommendations
from newfound.errors import ConfigError
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
AT = datetime(2026, 10, 1, 12, tzinfo=UTC)
DUMPS = Path(__file__).parent


def _load_unversioned(url: str) -> None:
    """The database that version 0.1.0 made, before there were migrations."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript((DUMPS / "unversioned.sqlite.sql").read_text())
        return
    engine = open_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql((DUMPS / "unversioned.postgresql.sql").read_text())
        connection.commit()
        connection.invalidate()  # the dump changes the session's search path
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.getfixturevalue(f"{request.param}_url")


def _schema(url: str) -> dict[str, Any]:
    engine = open_engine(url)
    with engine.connect() as connection:
        seen = inspect(connection)
        found = {
            table: (
                {column["name"]: (str(column["type"]), column["nullable"]) for column in seen.get_columns(table)},
                {tuple(index["column_names"]) for index in seen.get_indexes(table)},
                {tuple(one["column_names"]) for one in seen.get_unique_constraints(table)},
                tuple(seen.get_pk_constraint(table)["constrained_columns"]),
            )
            for table in seen.get_table_names()
            if table != "alembic_version"
        }
    engine.dispose()
    return found


def test_migrations_make_what_the_tables_say(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    Store(url, SECRET).close()
    migrated = _schema(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        assert revision_of(connection) == head()
        metadata.drop_all(connection)
        metadata.create_all(connection)
    engine.dispose()
    assert migrated == _schema(url)
    assert set(migrated) == set(metadata.tables)


def test_an_unversioned_database_is_taken_over_without_a_lost_event(url: str, tmp_path: Path) -> None:
    _load_unversioned(url)
    store = Store(url, SECRET)
    with store.engine.connect() as connection:
        assert revision_of(connection) == head()
        slates = connection.execute(select(recommendations).order_by(recommendations.c.seq)).all()
        assert [(row.id, row.degraded, row.client_seed) for row in slates] == [
            ("r1", False, False),
            ("r2", True, False),
        ]
        assert [row.id for row in connection.execute(select(feedback).order_by(feedback.c.seq))] == ["f1", "f2"]
        assert connection.execute(select(imported)).one().user_id == "42"
        assert connection.execute(select(erased)).one().user_key == store.key_of("44")
        assert connection.execute(select(decisions)).one().action == "refresh"
        assert connection.scalar(select(progress.c.value)) == 2
    # What a sender repeats is known, the erased user stays away, and new events get numbers of their own.
    again = [
        parts.feedback(1, at=AT + timedelta(minutes=2), recommendation_id="r1"),
        parts.recommendation(1, at=AT, user_id="42", history_at=AT - timedelta(hours=1)),
    ]
    assert store.write(again).duplicates == 2
    assert store.write([parts.feedback(3, at=AT + timedelta(minutes=4), user_id="44")]).erased == 1
    assert store.write([parts.feedback(4), parts.recommendation(4, client_seed=True)]).new == {
        "feedback": 1,
        "recommendations": 1,
    }
    with store.engine.connect() as connection:
        # Feedback of the erased user had number 3: numbers of deleted rows do not come again.
        assert connection.scalars(select(feedback.c.seq).order_by(feedback.c.seq)).all() == [1, 2, 4]
    assert export(store, tmp_path / "exports") == {"slates": 3, "slots": 6, "feedback": 3}
    store.close()


def test_down_and_up_again_loses_the_new_column_alone(url: str) -> None:
    store = Store(url, SECRET)
    store.write([parts.feedback(1), parts.recommendation(1, client_seed=True), parts.recommendation(2)])
    store.erase("nobody", AT)
    downgrade(store.engine, "0001")
    assert "client_seed" not in _schema(url)["recommendations"][0]
    upgrade(store.engine)
    with store.engine.connect() as connection:
        rows = connection.execute(select(recommendations).order_by(recommendations.c.seq)).all()
        assert [(row.id, row.client_seed) for row in rows] == [("r1", False), ("r2", False)]
        assert connection.execute(select(feedback)).one().id == "f1"
        connection.execute(recommendations.delete())
        connection.commit()
    store.write([parts.recommendation(3)])
    with store.engine.connect() as connection:
        assert connection.scalar(select(recommendations.c.seq)) == 3, "numbers of deleted rows do not come again"
    with pytest.raises(ConfigError, match="expected one of 0001"):
        downgrade(store.engine, "0000")
    store.close()


def test_a_later_versions_database_is_left_as_it_is(url: str) -> None:
    store = Store(url, SECRET)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("ALTER TABLE feedback ADD COLUMN later INTEGER DEFAULT 7")
    store.close()
    store = Store(url, SECRET)
    assert store.write([parts.feedback(1)]).new == {"feedback": 1}
    with store.engine.connect() as connection:
        assert revision_of(connection) == "9999"
    store.close()


def test_an_upgrade_under_load_loses_nothing(url: str) -> None:
    """Writers of the version before go on while the schema changes: each event that they committed is there."""
    _load_unversioned(url)
    engine = open_engine(url)
    committed: list[str] = []
    stop = threading.Event()

    def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{worker}-{number}"
            _, row = row_of(parts.recommendation(name), SECRET)
            del row["client_seed"]  # the version before knows no such column
            try:
                with engine.begin() as connection:
                    lock_writers(connection)
                    connection.execute(insert(recommendations).values(row))
            except Exception:  # not acknowledged: the sender tries again
                continue
            committed.append(row["id"])

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for writer in writers:
        writer.start()
    _until(lambda: len(committed) > 20)
    opened = [threading.Thread(target=lambda: Store(url, SECRET).close()) for _ in range(2)]
    for replica in opened:  # two replicas of the new version start at once
        replica.start()
    for replica in opened:
        replica.join(60)
    before = len(committed)
    _until(lambda: len(committed) > before + 20)
    stop.set()
    for writer in writers:
        writer.join(30)
    with engine.connect() as connection:
        assert revision_of(connection) == head()
        stored = list(connection.scalars(select(recommendations.c.id)))
    engine.dispose()
    assert set(committed) | {"r1", "r2"} == set(stored) and len(stored) == len(set(stored))


def _until(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
