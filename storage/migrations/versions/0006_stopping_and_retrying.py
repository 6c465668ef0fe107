"""Retries, cancelled batches, paused campaigns, and when an attempt is looked at for want of a final report."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("campaigns", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("batches", sa.Column("num_retries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("batches", sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE batches SET enqueued_at = updated_at WHERE status = 'messages_enqueued'")
    op.add_column("attempts", sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))
    # The first look finds out when the next one is.
    op.execute("UPDATE attempts SET due_at = coalesce(sent_at, created_at) WHERE status IN ('sent', 'sent_to_telco')")
    _partial_index("ix_messages_created", "messages", ["batch", "row"], "latest_status = 'created'")
    _partial_index("ix_attempts_failed", "attempts", ["batch", "row"], "status = 'failure'")
    _partial_index("ix_attempts_due_at", "attempts", ["due_at"], "due_at IS NOT NULL")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(op.f(name), table, columns, sqlite_where=where, postgresql_where=where)
