"""The schema of version 0.1.0: events, imported interactions, erasures, readers' progress, measures, decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    _make_events()
    _make_records()


def downgrade() -> None:
    """Refuses: what is below this revision is an empty database.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("the first revision is the lowest; drop the database by hand")


def _make_events() -> None:
    op.create_table(
        "recommendations",
        sa.Column("seq", _seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("at", sa.BigInteger, nullable=False, index=True),
        sa.Column("user_id", sa.String(256), nullable=False, index=True),
        sa.Column("user_key", sa.String(32), nullable=False),
        sa.Column("release", sa.String(128), nullable=False),
        sa.Column("history_length", sa.Integer, nullable=False),
        sa.Column("history_at", sa.BigInteger),
        sa.Column("successors", sa.Integer, nullable=False),
        sa.Column("leaked", sa.Integer, nullable=False),
        sa.Column("generated", sa.Integer, nullable=False),
        sa.Column("matched", sa.Integer, nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("interests", sa.Text, nullable=False),
        sa.Column("slots", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "feedback",
        sa.Column("seq", _seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("at", sa.BigInteger, nullable=False, index=True),
        sa.Column("user_id", sa.String(256), nullable=False),
        sa.Column("user_key", sa.String(32), nullable=False),
        sa.Column("recommendation_id", sa.String(128)),
        sa.Column("item", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("share", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_user", "feedback", ["user_id", "at"])
    op.create_table(
        "inferences",
        sa.Column("seq", _seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(160), nullable=False, unique=True),
        sa.Column("at", sa.BigInteger, nullable=False, index=True),
        sa.Column("service", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )


def _make_records() -> None:
    op.create_table(
        "pasts",
        sa.Column("user_id", sa.String(256), primary_key=True),
        sa.Column("events", sa.Text, nullable=False),
    )
    op.create_table(
        "erased",
        sa.Column("user_key", sa.String(32), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "progress",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "measures",
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stop", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("release", sa.String(128), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("value", sa.Float),
    )
    op.create_table(
        "decisions",
        sa.Column("seq", _seq, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("submitted", sa.Boolean, nullable=False),
        sa.Column("run", sa.String(256)),
        sqlite_autoincrement=True,
    )
