"""Connections to the store, durable and bounded in time, and the locks among those who write.

Nothing waits for ever on a peer that is gone. A replica that vanishes while it holds the writer's lock loses it when
its transaction was idle for `IDLE_S`, or when the server's keepalives miss it; a statement, a wait for a lock and a
connection that is being made have limits of their own. (Those are PostgreSQL's; sqlite has no peers.)
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

CONNECT_S: Final = 5
LOCK_S: Final = 5
IDLE_S: Final = 5  # of a transaction that holds the writer's lock; other ones may be idle for a minute
# Keepalives: a peer that is gone is noticed after 5 + 3 * 2 seconds, and what it was sent is given up after 10.
_CLIENT: Final = {
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SERVER: Final = {
    "synchronous_commit": "on",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
# Keys of PostgreSQL's advisory locks: one writer of events, one pusher of histories.
_WRITER_LOCK: Final = 0x6E65_7766_0001
_PUSHER_LOCK: Final = 0x6E65_7766_0002


def open_engine(url: str, statement_s: int = 0) -> Engine:
    """An engine whose commits are on disk when they return.

    Args:
        url: such as `sqlite:///events.db` or `postgresql+psycopg://host/newfound`.
        statement_s: how long PostgreSQL may work on one statement; 0 sets no limit.
    """
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30})

        @event.listens_for(engine, "connect")
        def _durable(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.close()

        return engine
    settings = {**_SERVER, "statement_timeout": f"{statement_s}s"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return create_engine(url, pool_pre_ping=True, pool_timeout=LOCK_S, connect_args={**_CLIENT, "options": options})


def lock_writers(connection: Connection, seconds: float = LOCK_S) -> None:
    """Makes this transaction the only one that writes events, until it ends.

    Args:
        connection: in a transaction, before its first write.
        seconds: how long to wait for another writer (PostgreSQL; sqlite's connections have one limit).

    Raises:
        OperationalError: another writer holds the lock for longer.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = {int(seconds * 1000)}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_S * 1000}; "
        f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})"
    )


class PusherLock:
    """The lock of whoever changes Feast's rows.

    Attributes:
        held: whether this process got it.
    """

    def __init__(self, held: bool, connection: Connection | None = None) -> None:
        self.held, self._connection = held, connection

    def check(self) -> None:
        """Makes sure that the lock is still held: the server takes it from whoever it cannot reach any more.

        Raises:
            OperationalError: the connection that held it is gone.
        """
        if self.held and self._connection is not None:
            self._connection.execute(text("SELECT 1"))


@contextmanager
def lock_pushers(engine: Engine, *, wait_s: float = 0) -> Iterator[PusherLock]:
    """Makes this process the only one that changes Feast's rows until it leaves the block.

    Args:
        engine: the store's.
        wait_s: how long to wait for whoever does so now; the lock may not be held then.
    """
    until = time.monotonic() + wait_s
    if engine.dialect.name == "sqlite":
        with Path(f"{engine.url.database}.pusher").open("w") as file:
            yield PusherLock(_poll(lambda: _flock(file.fileno()), until))
        return
    # Without a transaction: an idle one would be ended by the server while rows are on their way to Feast.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        lock = text("SELECT pg_try_advisory_lock(:key)")
        held = _poll(lambda: bool(connection.scalar(lock, {"key": _PUSHER_LOCK})), until)
        try:
            yield PusherLock(held, connection)
        finally:
            if held:
                _unlock(connection)


def _unlock(connection: Connection) -> None:
    try:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _PUSHER_LOCK})
    except DBAPIError:  # the connection is gone, and the lock with it
        connection.invalidate()


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _poll(attempt: Any, until: float) -> bool:
    while not attempt():
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True
