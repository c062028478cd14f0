"""The durable store of events: SQLAlchemy over sqlite on one machine and PostgreSQL in a cluster.

An event is stored once, whatever its sender repeats: its id is unique. `seq` grows in commit order (one writer at a
time, by lock), so that a reader who remembers the last one that it saw misses nothing.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from monitoring.store.tables import (
    erased,
    feedback,
    imported,
    inferences,
    measures,
    metadata,
    progress,
    recommendations,
)
from newfound.events import FeedbackEvent, RecommendationEvent, user_key

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Keys of PostgreSQL's advisory locks: one writer of events, one pusher of histories.
_WRITER_LOCK: Final = 0x6E65_7766_0001
_PUSHER_LOCK: Final = 0x6E65_7766_0002


def micros(at: datetime) -> int:
    """UTC microseconds since the epoch, without rounding through floats."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """The inverse of `micros`."""
    return _EPOCH + timedelta(microseconds=value)


@dataclass(frozen=True)
class Inference:
    """One record of KServe's logger: that a call happened, without its content."""

    id: str
    at: datetime
    service: str
    kind: str
    instances: int


Stored = RecommendationEvent | FeedbackEvent | Inference


@dataclass(frozen=True)
class Written:
    """Result of one commit: events new by table, and how many were known already."""

    new: Mapping[str, int]
    duplicates: int


class Store:
    """Events, measures and decisions behind one SQLAlchemy URL.

    Args:
        url: such as `sqlite:///events.db` or `postgresql+psycopg://host/newfound`.
        secret: key of the users' hashes.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        self._secret = secret
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        with self.engine.begin() as connection:
            if not self.is_sqlite:  # two replicas that start together must not both create
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
            metadata.create_all(connection)

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()

    def write(self, events: Sequence[Stored]) -> Written:
        """Stores events in one transaction; when it returns, they are on disk.

        Events whose id is known are left as they are.
        """
        rows: dict[str, list[dict[str, Any]]] = {"recommendations": [], "feedback": [], "inferences": []}
        for one in events:
            if isinstance(one, RecommendationEvent):
                rows["recommendations"].append(_recommendation_row(one))
            elif isinstance(one, FeedbackEvent):
                rows["feedback"].append(self._feedback_row(one))
            else:
                rows["inferences"].append(
                    {
                        "id": f"{one.id}:{one.kind}",
                        "at": micros(one.at),
                        "service": one.service,
                        "kind": one.kind,
                        "instances": one.instances,
                    }
                )
        new: dict[str, int] = {}
        with self.engine.begin() as connection:
            self._lock(connection)
            marks = self._marks(
                connection, {row["user_key"] for some in rows.values() for row in some if "user_key" in row}
            )
            for name, some in rows.items():
                some = [row for row in some if row["at"] > marks.get(row.get("user_key"), -1)]
                if some:
                    new[name] = self._insert_new(connection, metadata.tables[name], some)
        return Written(new, len(events) - sum(new.values()))

    def _lock(self, connection: Connection) -> None:
        """One writer at a time, until the transaction ends."""
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})

    def _marks(self, connection: Connection, keys: set[str]) -> dict[str, int]:
        """Until when events of these users are refused, for those who were erased."""
        marks: dict[str, int] = {}
        listed = sorted(keys)
        for start in range(0, len(listed), 500):
            some = listed[start : start + 500]
            query = select(erased.c.user_key, erased.c.at).where(erased.c.user_key.in_(some))
            marks.update({row.user_key: row.at for row in connection.execute(query)})
        return marks

    def _insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
        # Looking first keeps the sequence free of holes; the writer's lock makes it safe.
        known: set[str] = set()
        ids = list({row["id"] for row in rows})
        for start in range(0, len(ids), 500):
            known.update(connection.scalars(select(table.c.id).where(table.c.id.in_(ids[start : start + 500]))))
        fresh: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["id"] not in known:
                fresh.setdefault(row["id"], row)
        if fresh:
            connection.execute(table.insert(), list(fresh.values()))
        return len(fresh)

    def _feedback_row(self, one: FeedbackEvent) -> dict[str, Any]:
        return {
            "id": one.id,
            "at": micros(one.at),
            "user_id": one.user_id,
            "user_key": user_key(one.user_id, self._secret),
            "recommendation_id": one.recommendation_id,
            "item": one.item,
            "kind": one.kind,
            "share": one.share,
        }

    # --- reading --------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        with self.engine.connect() as connection:
            return {
                name: connection.scalar(select(func.count()).select_from(metadata.tables[name])) or 0
                for name in ("recommendations", "feedback", "inferences")
            }

    def after(self, table: Table, seq: int, batch: int) -> Iterator[list[Any]]:
        """Rows that came after `seq`, in order, in bounded batches."""
        while True:
            with self.engine.connect() as connection:
                rows = list(
                    connection.execute(select(table).where(table.c.seq > seq).order_by(table.c.seq).limit(batch))
                )
            if not rows:
                return
            yield rows
            seq = rows[-1].seq

    def progress_of(self, name: str) -> int:
        """How far a reader came; 0 before its first step."""
        with self.engine.connect() as connection:
            return connection.scalar(select(progress.c.value).where(progress.c.name == name)) or 0

    def set_progress(self, name: str, value: int) -> None:
        """Remembers how far a reader came."""
        self._upsert(progress, [{"name": name, "value": value}])

    def put_measures(self, start: datetime, stop: datetime, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts a window's measures in the place of those that it had."""
        here = (measures.c.start == micros(start)) & (measures.c.stop == micros(stop))
        with self.engine.begin() as connection:
            connection.execute(delete(measures).where(here))
            if rows:
                connection.execute(measures.insert(), [dict(row) for row in rows])

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        insert = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)
        keys = [column.name for column in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        statement = insert.on_conflict_do_update(index_elements=keys, set_=changed)
        with self.engine.begin() as connection:
            for start in range(0, len(rows), 200):
                connection.execute(statement, [dict(row) for row in rows[start : start + 200]])

    @contextmanager
    def sole_pusher(self, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process alone may change Feast's rows until it leaves the block.

        Args:
            wait: for whoever does so now; else the answer may be no.
        """
        if self.is_sqlite:
            with Path(f"{self.engine.url.database}.pusher").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                else:
                    yield True
            return
        call = "pg_advisory_lock(:key) IS NOT NULL" if wait else "pg_try_advisory_lock(:key)"
        with self.engine.connect() as connection:
            held = bool(connection.scalar(text(f"SELECT {call}"), {"key": _PUSHER_LOCK}))
            try:
                yield held
            finally:
                if held:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _PUSHER_LOCK})

    # --- imported interactions, and people's data ---------------------------------------------------------------------

    def import_interactions(
        self, rows: Iterable[tuple[str, Sequence[tuple[str, int, float, bool]]]], batch: int = 500
    ) -> int:
        """Stores users' earlier interactions in place of those that were imported; returns the number of users."""
        waiting: list[dict[str, Any]] = []
        total = 0
        for user, events in rows:
            waiting.append({"user_id": user, "events": json.dumps(list(events), separators=(",", ":"))})
            total += 1
            if len(waiting) == batch:
                self._upsert(imported, waiting)
                waiting = []
        self._upsert(imported, waiting)
        return total

    def erase(self, user_id: str, now: datetime) -> dict[str, int]:
        """Removes every row of a user, and leaves a mark that keeps late arrivals out. Returns the rows by table."""
        removed = {}
        self._upsert(erased, [{"user_key": self.key_of(user_id), "at": micros(now)}])
        with self.engine.begin() as connection:
            self._lock(connection)  # a batch that was checked before the mark is committed by now, and goes too
            for table in (recommendations, feedback, imported):
                removed[table.name] = connection.execute(delete(table).where(table.c.user_id == user_id)).rowcount
        self._vacuum()
        return removed

    def retain(self, days: int, now: datetime) -> dict[str, int]:
        """Removes events older than `days`. Returns the rows removed by table."""
        oldest = micros(now - timedelta(days=days))
        removed = {}
        with self.engine.begin() as connection:
            for table in (recommendations, feedback, inferences):
                removed[table.name] = connection.execute(delete(table).where(table.c.at < oldest)).rowcount
        self._vacuum()
        return removed

    def _vacuum(self) -> None:
        """Deleted rows stay in the databases' files until they are told otherwise."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM"))
            if self.is_sqlite:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def key_of(self, user_id: str) -> str:
        """The user's keyed hash."""
        return user_key(user_id, self._secret)


def _recommendation_row(one: RecommendationEvent) -> dict[str, Any]:
    return {
        "id": one.id,
        "at": micros(one.at),
        "user_id": one.user_id,
        "user_key": one.user_key,
        "release": one.release,
        "history_length": one.history_length,
        "history_at": None if one.history_at is None else micros(one.history_at),
        "successors": one.answers.successors,
        "leaked": one.answers.leaked,
        "generated": one.answers.generated,
        "matched": one.answers.matched,
        "seed": str(one.seed),
        "latency_ms": one.latency_ms,
        "degraded": one.degraded,
        "interests": json.dumps(one.interests),
        "slots": json.dumps([slot.model_dump(mode="json") for slot in one.slots], separators=(",", ":")),
    }


def _engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30})

        @event.listens_for(engine, "connect")
        def _durable(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # a commit is on disk when it returns
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.close()

        return engine
    return create_engine(url, pool_pre_ping=True, connect_args={"options": "-c synchronous_commit=on"})


def wait_for(store_url: str, secret: bytes, seconds: float) -> Store:
    """Opens the store, waiting for a database that is still starting."""
    until = time.monotonic() + seconds
    while True:
        try:
            return Store(store_url, secret)
        except Exception:  # the drivers' errors differ; the last one is raised
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
