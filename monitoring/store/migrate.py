"""Migrations of the store's schema, by Alembic: the scripts in `migrations/versions`, from one revision to another.

Every migration only adds, with defaults, so that collectors of the version before go on writing while it runs and after
it: the order of a rolling update does not matter. One process migrates at a time. A database from before there were
migrations has no revision; it is taken for the first one, whose schema it has.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from newfound.errors import ConfigError

log: Final = logging.getLogger("newfound.monitoring.store")
FIRST: Final = "0001"
_SCRIPTS: Final = Path(__file__).parent / "migrations"
_TABLE: Final = "alembic_version"
_LOCK: Final = 0x6E65_7766_0003  # PostgreSQL's advisory lock of whoever migrates
_PATIENCE_S: Final = 60
_WAIT_MS: Final = 2000  # for a table's lock: nobody writes while somebody waits for it


def head() -> str:
    """The newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or FIRST


def revision_of(connection: Connection) -> str | None:
    """The database's revision; None where it has none."""
    if not inspect(connection).has_table(_TABLE):
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {_TABLE}"))
    return revision


def upgrade(engine: Engine) -> None:
    """Brings the schema to this code's revision; does nothing where it is there, or further.

    A database that a later version migrated is left as it is: migrations only add, so this code can go on with it.
    """
    with engine.connect() as connection:
        revision = revision_of(connection)
    if revision == head():
        return
    if revision is not None and revision not in _known():
        log.warning("the store has revision %s, which is later than %s; left as it is", revision, head())
        return
    _migrate_soon(engine, head())


def downgrade(engine: Engine, revision: str) -> None:
    """Takes the schema back to an earlier revision. What later ones added is dropped with what it holds.

    Raises:
        ConfigError: there is no such revision.
    """
    if revision not in _known():
        raise ConfigError(f"revision {revision!r}: expected one of {', '.join(sorted(_known()))}")
    _migrate_soon(engine, revision)


def _migrate_soon(engine: Engine, revision: str) -> None:
    """Tries again where a table stays locked for too long."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _migrate(engine, revision)
        except OperationalError:
            if time.monotonic() > until:
                raise
            log.warning("the schema cannot be changed yet; trying again")
            time.sleep(0.5)


def _migrate(engine: Engine, revision: str) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # the lock is the session's: it outlives the transaction, and two processes never migrate together
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.execute(text(f"SET lock_timeout = {_WAIT_MS}"))
            connection.execute(text("SET statement_timeout = 0"))
            connection.commit()
        try:
            _run(connection, revision)
            connection.commit()
        finally:
            if engine.dialect.name != "sqlite":
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
                connection.commit()
                connection.invalidate()  # its timeouts are those of a migration


def _run(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    before = revision_of(connection)
    if before is None and inspect(connection).has_table("recommendations"):
        command.stamp(config, FIRST)
        before = FIRST
    if before == revision:
        return
    try:
        if before is None or before < revision:
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
    except CommandError as error:
        raise ConfigError(f"the store cannot be brought to revision {revision}: {error}") from error
    log.info("the store's schema: revision %s, was %s", revision, before or "empty")


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config
