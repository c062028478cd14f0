"""Slates tell whether the client chose their seed: off-policy estimates leave those out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; its default lets collectors of the version before write on, and rewrites no row."""
    op.add_column("recommendations", sa.Column("client_seed", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drops the column."""
    op.drop_column("recommendations", "client_seed")
