"""Uploads that are held, released, dropped or tried again: why, since when, and who decided."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("is_cut_off", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("uploads", sa.Column("repeat_of", sa.String(length=64), nullable=True))
    op.add_column("uploads", sa.Column("decided_by", sa.Text(), nullable=True))
    op.add_column("uploads", sa.Column("num_retries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("uploads", sa.Column("held_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("uploads", sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_uploads_campaign_id_sha256"), "uploads", ["campaign_id", "sha256"])
