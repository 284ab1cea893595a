"""Guidance items and what each was worth, example by example."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("item_id", sa.String(20), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("component", "text")),
    )
    op.create_table(
        "evidence",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("item_id", sa.String(20), primary_key=True),
        sa.Column("example_id", sa.Text, primary_key=True),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("difference", sa.Float, nullable=False),
        sa.Column("pairs", sa.Integer, nullable=False),
    )
    op.create_index("ix_evidence_operation", "evidence", ["operation", "item_id"])
    op.create_index("ix_evidence_item", "evidence", ["item_id"])
