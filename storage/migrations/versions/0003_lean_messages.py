"""Lean rows of messages: what follows from batch and row, or is the same for a whole batch, is written no more.

What is there is kept. A batch's index of ids is complete if it has as many rows as the batch has messages; the index
of one that is still being written is completed once it is enqueued.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("is_indexed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE batches SET is_indexed = true WHERE status <> 'messages_enqueuing' AND "
        "(SELECT count(*) FROM messages WHERE batch = batches.number) = "
        "(SELECT count(*) FROM message_ids WHERE batch = batches.number)"
    )
    with op.batch_alter_table("messages") as messages:
        messages.drop_column("id")
        messages.alter_column("latest_status", existing_type=sa.String(length=16), server_default="enqueued")
        messages.alter_column("num_attempts", existing_type=sa.Integer(), server_default="0")
        for name in ("created_at", "updated_at"):
            messages.alter_column(name, existing_type=sa.DateTime(timezone=True), nullable=True)
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_constraint(op.f("uq_attempts_message_id_number"), type_="unique")
        attempts.drop_column("message_id")
        attempts.create_unique_constraint(op.f("uq_attempts_batch_row_number"), ["batch", "row", "number"])
