"""Rights of each workload's role of PostgreSQL in the store's tables; their owner's role gives them.

The roles are made where the database is (k8s/base/stores/roles.sh); one that is not there is given nothing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Engine, text

from monitoring.store.tables import (
    decisions,
    erased,
    feedback,
    imported,
    measures,
    recommendations,
    verdicts,
)

_READ: Final = "SELECT"
_EVENTS: Final = {recommendations.name: _READ, feedback.name: _READ}
GRANTS: Final = {
    "newfound_exporter": {measures.name: _READ, decisions.name: _READ, verdicts.name: _READ},
    "newfound_report": {**_EVENTS, measures.name: "SELECT, INSERT, DELETE"},
    "newfound_decide": {**_EVENTS, imported.name: _READ, measures.name: _READ, decisions.name: "SELECT, INSERT"},
    "newfound_verdict": {**_EVENTS, verdicts.name: "SELECT, INSERT"},
    "newfound_import": {erased.name: _READ, imported.name: "SELECT, INSERT, UPDATE"},
}
_LOCK: Final = 0x6E65_7766_0004  # PostgreSQL's advisory lock of whoever grants


def grant(engine: Engine) -> None:
    """Gives the roles that there are what they need; does nothing but as the tables' owner."""
    if engine.dialect.name != "postgresql":
        return
    with engine.begin() as connection:
        owner = text("SELECT tableowner = current_user FROM pg_tables WHERE tablename = :name")
        if not connection.scalar(owner, {"name": recommendations.name}):
            return
        found = text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)")
        roles = list(connection.scalars(found, {"names": list(GRANTS)}))
        if roles:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        for role in roles:
            connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
            for table, rights in {"alembic_version": _READ, **GRANTS[role]}.items():
                connection.execute(text(f"GRANT {rights} ON {table} TO {role}"))
            for table in (decisions, verdicts):
                if "INSERT" in GRANTS[role].get(table.name, ""):
                    connection.execute(text(f"GRANT USAGE ON SEQUENCE {table.name}_seq_seq TO {role}"))
