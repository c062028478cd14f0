"""Alembic's entry point: runs migrations on the connection that `monitoring.store.migrate` gives it."""

from __future__ import annotations

from alembic import context

from monitoring.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
