"""Traces with their attempts and rewards, runs, verdicts, candidates, lineage, reviews."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _traces()
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "operation", "status")),
        sa.Column("started", sa.Float, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("judges", "source", "config")),
    )
    op.create_index("ix_runs_operation", "runs", ["operation", "started"])
    op.create_table(
        "verdicts",
        sa.Column("run_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("ruling", "winner_id")),
        *(sa.Column(name, sa.Float) for name in ("gain", "gain_low", "gain_high")),
        sa.Column("pairs", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "candidates",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("run_id", "candidate_id")),
        sa.Column("slot", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("origin", "note", "body")),
    )
    op.create_table("lineage", *(sa.Column(name, sa.Text, primary_key=True) for name in ("run_id", "candidate_id", "parent_id")))
    op.create_table(
        "reviews",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("trace_id", sa.String(20), nullable=False),
        *(sa.Column(name, sa.String(12), nullable=False) for name in ("was", "state")),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
    )
    op.create_index("ix_reviews_trace", "reviews", ["trace_id", "seq"])


def _traces() -> None:
    op.create_table(
        "traces",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(20), nullable=False, unique=True),
        sa.Column("kind", sa.String(8), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("run_id", "operation", "candidate_id", "example_id")),
        sa.Column("sample", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("split", "question")),
        *(sa.Column(name, sa.Float) for name in ("before", "after", "delta")),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        *(sa.Column(name, sa.String(12), nullable=False) for name in ("state", "given_state")),
        sa.Column("body", sa.Text, nullable=False),
    )
    for columns in (
        ["created"], ["after"], ["delta"], ["state", "created"], ["operation", "created"], ["operation", "after"],
        ["operation", "delta"], ["operation", "state", "created"],
    ):  # fmt: skip
        op.create_index(f"ix_traces_{'_'.join(columns)}", "traces", [*columns, "seq"])
    op.create_index("ix_traces_run", "traces", ["run_id", "seq"])
    op.create_table(
        "attempts",
        sa.Column("trace_id", sa.String(20), primary_key=True),
        sa.Column("side", sa.String(8), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("stop", "error")),
        *(sa.Column(name, sa.BigInteger) for name in ("input_tokens", "output_tokens")),
        *(sa.Column(name, sa.Float) for name in ("dollars", "seconds")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rewards",
        sa.Column("trace_id", sa.String(20), primary_key=True),
        sa.Column("side", sa.String(8), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("judge", sa.Text, nullable=False),
        *(sa.Column(name, sa.Float) for name in ("value", "uncertainty")),
        sa.Column("missing", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
