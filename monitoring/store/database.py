"""The durable store of events: SQLAlchemy over sqlite on one machine and PostgreSQL in a cluster.

An event is stored once, whatever its sender repeats: its id is unique. `seq` grows in commit order (one writer at a
time, by lock), so that a reader who remembers the last one that it saw misses nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, exists, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from monitoring.feedback import DAY
from monitoring.store.batches import Batch, Refusal, Selection, Written
from monitoring.store.engine import PusherLock, lock_pushers, lock_writers, open_engine
from monitoring.store.grants import grant
from monitoring.store.migrate import upgrade
from monitoring.store.rows import TABLES, Row, Stored, micros, moment, row_of
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
from newfound.events import user_key

_IDS: Final = 500  # of one query
_DELETED: Final = 10_000  # rows of one transaction


class Store:
    """Events, measures and decisions behind one SQLAlchemy URL; opening it brings the schema up to date.

    Args:
        url: such as `sqlite:///events.db` or `postgresql+psycopg://host/newfound`.
        secret: key of the users' hashes.
        quota: feedback that is taken of a user for one UTC day; None sets no limit.
        statement_s: how long PostgreSQL may work on one statement; 0 sets no limit.
    """

    def __init__(self, url: str, secret: bytes, *, quota: int | None = None, statement_s: int = 0) -> None:
        self._secret, self._quota = secret, quota
        self.engine = open_engine(url, statement_s)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        upgrade(self.engine)
        grant(self.engine)

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()

    # --- events -------------------------------------------------------------------------------------------------------

    def write(self, events: Sequence[Stored]) -> Written:
        """Stores one batch, see `write_batches`."""
        return self.write_batches([Batch(events)])

    def write_batches(self, batches: Sequence[Batch]) -> Written:
        """Stores batches in one transaction; when it returns, they are on disk.

        Events that are stored already are left as they are. A batch with an event that takes another's id, or with
        feedback beyond its user's quota, is refused whole.
        """
        rows = [[row_of(event, self._secret) for event in batch.events] for batch in batches]
        refused: dict[int, Refusal] = {}
        with self.engine.begin() as connection:
            lock_writers(connection)
            selection = self._selection(connection, [pair for some in rows for pair in some])
            for index, (batch, some) in enumerate(zip(batches, rows, strict=True)):
                refusal = selection.add(some, batch.corrected)
                if refusal is not None:
                    refused[index] = refusal
            for name, fresh in selection.rows.items():
                connection.execute(metadata.tables[name].insert(), fresh)
        new = {name: len(fresh) for name, fresh in selection.rows.items()}
        return Written(new, selection.duplicates, selection.erased, refused)

    def _selection(self, connection: Connection, rows: Sequence[tuple[str, Row]]) -> Selection:
        known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for name in TABLES:
            table = metadata.tables[name]
            ids = {row["id"] for of, row in rows if of == name}
            for some in _chunks(ids):
                for row in connection.execute(select(table).where(table.c.id.in_(some))).mappings():
                    known[name, row["id"]] = row
        marks = self._marks(connection, {row["user_key"] for _, row in rows if "user_key" in row})
        counts = self._counts(connection, [row for name, row in rows if name == "feedback"])
        return Selection(known, marks, counts, self._quota)

    def _marks(self, connection: Connection, keys: set[str]) -> dict[str, int]:
        """Of erased users, the moment until which their events are dropped."""
        marks: dict[str, int] = {}
        for some in _chunks(keys):
            query = select(erased.c.user_key, erased.c.at).where(erased.c.user_key.in_(some))
            marks.update({row.user_key: row.at for row in connection.execute(query)})
        return marks

    def _counts(self, connection: Connection, rows: Sequence[Row]) -> dict[tuple[str, int], int]:
        """Stored feedback of the rows' users and days."""
        if self._quota is None or not rows:
            return {}
        days = [row["at"] // DAY for row in rows]
        day = (feedback.c.at // DAY).label("day")
        span = feedback.c.at.between(min(days) * DAY, (max(days) + 1) * DAY - 1)
        counts: dict[tuple[str, int], int] = {}
        for some in _chunks({row["user_id"] for row in rows}):
            query = select(feedback.c.user_id, day, func.count()).where(feedback.c.user_id.in_(some), span)
            for user, at, count in connection.execute(query.group_by(feedback.c.user_id, day)):
                counts[user, int(at)] = count
        return counts

    # --- reading ------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        with self.engine.connect() as connection:
            return {
                name: connection.scalar(select(func.count()).select_from(metadata.tables[name])) or 0 for name in TABLES
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

    def key_of(self, user_id: str) -> str:
        """The user's keyed hash."""
        return user_key(user_id, self._secret)

    # --- readers' progress, measures ----------------------------------------------------------------------------------

    def progress_of(self, name: str) -> int:
        """A reader's place; 0 before its first step."""
        with self.engine.connect() as connection:
            return connection.scalar(select(progress.c.value).where(progress.c.name == name)) or 0

    def set_progress(self, name: str, value: int) -> None:
        """Remembers how far a reader came."""
        self._upsert(progress, [{"name": name, "value": value}])

    def probe(self, seconds: float = 1) -> None:
        """Writes a row as a commit of events would, and raises the driver's error where that takes too long."""
        with self.engine.begin() as connection:
            lock_writers(connection, seconds)
            self._put(connection, progress, [{"name": "probe", "value": micros(datetime.now(UTC))}])

    def put_measures(self, start: datetime, stop: datetime, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts a window's measures in the place of those that it had."""
        here = (measures.c.start == micros(start)) & (measures.c.stop == micros(stop))
        with self.engine.begin() as connection:
            connection.execute(delete(measures).where(here))
            if rows:
                connection.execute(measures.insert(), [dict(row) for row in rows])

    def sole_pusher(self, *, wait_s: float = 0) -> AbstractContextManager[PusherLock]:
        """The lock of whoever changes Feast's rows, see `lock_pushers`."""
        return lock_pushers(self.engine, wait_s=wait_s)

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.engine.begin() as connection:
            self._put(connection, table, rows)

    def _put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows, or puts them in the place of those with their keys."""
        if not rows:
            return
        insert = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)
        keys = [column.name for column in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        statement = insert.on_conflict_do_update(index_elements=keys, set_=changed)
        for start in range(0, len(rows), 200):
            connection.execute(statement, [dict(row) for row in rows[start : start + 200]])

    # --- imported interactions, and people's data ---------------------------------------------------------------------

    def import_interactions(
        self, rows: Iterable[tuple[str, Sequence[tuple[str, int, float, bool]]]], batch: int = 500
    ) -> int:
        """Stores users' earlier interactions in place of those that were imported; returns the number of users."""
        waiting: dict[str, Sequence[tuple[str, int, float, bool]]] = {}
        total = 0
        for user, events in rows:
            waiting[user] = events
            if len(waiting) == batch:
                total += self._import(waiting)
                waiting = {}
        return total + self._import(waiting)

    def _import(self, events_of: Mapping[str, Sequence[tuple[str, int, float, bool]]]) -> int:
        with self.engine.begin() as connection:
            lock_writers(connection)
            kept = self._unmarked(connection, events_of)
            self._put(connection, imported, kept)
        return len(kept)

    def _unmarked(self, connection: Connection, events_of: Mapping[str, Sequence[Any]]) -> list[Row]:
        """Rows of imported interactions, without those from before their user's erasure."""
        key_of = {user: self.key_of(user) for user in events_of}
        marks = self._marks(connection, set(key_of.values()))
        kept: list[Row] = []
        for user, events in events_of.items():
            left = [event for event in events if event[1] * 1000 > marks.get(key_of[user], -1)]
            if left or not events:
                kept.append({"user_id": user, "events": json.dumps(left, separators=(",", ":"))})
        return kept

    def erase(self, user_id: str, until: datetime) -> dict[str, int]:
        """Removes every row of a user, and leaves a mark that keeps late arrivals out.

        Args:
            user_id: whom.
            until: the moment until which the user's events are dropped from now on.

        Returns:
            The rows removed by table.
        """
        removed = {}
        with self.engine.begin() as connection:
            lock_writers(connection)
            self._put(connection, erased, [{"user_key": self.key_of(user_id), "at": micros(until)}])
            for table in (recommendations, feedback, imported):
                removed[table.name] = connection.execute(delete(table).where(table.c.user_id == user_id)).rowcount
        self._vacuum(recommendations, feedback, imported)
        return removed

    def erase_keys(self, until: Mapping[str, datetime]) -> dict[str, int]:
        """Removes what is left of erased users, by their hashes, and sets their marks.

        Args:
            until: by hash, the moment until which the user's events are dropped.

        Returns:
            The rows removed by table.
        """
        with self.engine.begin() as connection:
            lock_writers(connection)
            marks = self._marks(connection, set(until))
            later = {key: max(micros(at), marks.get(key, -1)) for key, at in until.items()}
            self._put(connection, erased, [{"user_key": key, "at": at} for key, at in later.items()])
        removed = {}
        for table in (recommendations, feedback):  # nothing of the kind comes in any more
            old = exists().where(erased.c.user_key == table.c.user_key, table.c.at <= erased.c.at)
            with self.engine.begin() as connection:
                removed[table.name] = connection.execute(delete(table).where(old)).rowcount
        removed[imported.name] = self._erase_imported(later)
        self._vacuum(recommendations, feedback, imported)
        return removed

    def _erase_imported(self, marks: Mapping[str, int]) -> int:
        """Imports the users' interactions once more, without those from before; returns how many lost any."""
        with self.engine.connect() as connection:
            users = [user for user in connection.scalars(select(imported.c.user_id)) if self.key_of(user) in marks]
        removed = 0
        for some in _chunks(users):
            here = imported.c.user_id.in_(some)
            with self.engine.begin() as connection:
                lock_writers(connection)
                rows = {row.user_id: row.events for row in connection.execute(select(imported).where(here))}
                connection.execute(delete(imported).where(here))
                kept = self._unmarked(connection, {user: json.loads(events) for user, events in rows.items()})
                self._put(connection, imported, kept)
                removed += len(rows) - sum(rows[row["user_id"]] == row["events"] for row in kept)
        return removed

    def newest_of(self, user_id: str) -> datetime:
        """The moment of a user's newest event; the epoch where there is none."""
        with self.engine.connect() as connection:
            found = [
                connection.scalar(select(func.max(table.c.at)).where(table.c.user_id == user_id))
                for table in (recommendations, feedback)
            ]
        return moment(max(at or 0 for at in found))

    def first_feedback(self, user_ids: Sequence[str]) -> int | None:
        """The lowest number of any feedback of these users."""
        lowest: list[int] = []
        with self.engine.connect() as connection:
            for some in _chunks(user_ids):
                seq = connection.scalar(select(func.min(feedback.c.seq)).where(feedback.c.user_id.in_(some)))
                lowest += [] if seq is None else [seq]
        return min(lowest, default=None)

    def retain(self, days: int, now: datetime) -> dict[str, int]:
        """Removes events older than `days`. Returns the rows removed by table."""
        oldest = micros(now - timedelta(days=days))
        removed = {table.name: self._delete_before(table, oldest) for table in (recommendations, feedback, inferences)}
        self._vacuum(recommendations, feedback, inferences)
        return removed

    def _delete_before(self, table: Table, oldest: int) -> int:
        """Deletes in transactions that nobody has to wait long for."""
        total = 0
        old = select(table.c.seq).where(table.c.at < oldest).limit(_DELETED)
        while True:
            with self.engine.begin() as connection:
                removed = connection.execute(delete(table).where(table.c.seq.in_(old.scalar_subquery()))).rowcount
            total += removed
            if removed < _DELETED:
                return total

    def _vacuum(self, *tables: Table) -> None:
        """Deleted rows stay in the databases' files until they are told otherwise."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self.is_sqlite:
                connection.execute(text("VACUUM"))
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
            else:
                connection.execute(text("SET statement_timeout = 0"))
                connection.execute(text(f"VACUUM {', '.join(table.name for table in tables)}"))
                connection.execute(text("RESET statement_timeout"))


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    listed = sorted(values)
    for start in range(0, len(listed), _IDS):
        yield listed[start : start + _IDS]


def wait_for(store_url: str, secret: bytes, seconds: float, *, quota: int | None = None, statement_s: int = 0) -> Store:
    """Opens the store, waiting for a database that is still starting."""
    until = time.monotonic() + seconds
    while True:
        try:
            return Store(store_url, secret, quota=quota, statement_s=statement_s)
        except Exception:  # the drivers' errors differ; the last one is raised
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
