"""Verdicts on canaries, so that alerts can tell of them by release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "verdicts",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("release", sa.String(128), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rolled_back", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_verdicts_release", "verdicts", ["release"])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("verdicts")
