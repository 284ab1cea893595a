"""Indices that hold what a page is filtered by besides its order: time and state beside a reward or a delta, time within a run."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("after", "delta", "operation_after", "operation_delta", "run"):
        op.drop_index(f"ix_traces_{name}", "traces")
    for figure in ("after", "delta"):
        op.create_index(f"ix_traces_{figure}", "traces", [figure, "created", "seq", "state"])
        op.create_index(f"ix_traces_operation_{figure}", "traces", ["operation", figure, "created", "seq", "state"])
    op.create_index("ix_traces_run", "traces", ["run_id", "created", "seq", "state"])
