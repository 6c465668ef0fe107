"""Only attempts that the provider named stand in the index of its names: a claim writes to one index less."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_attempts_external_id", "attempts")
    condition = sa.text("external_id <> ''")
    op.create_index(
        "ix_attempts_external_id",
        "attempts",
        ["external_id"],
        sqlite_where=condition,
        postgresql_where=condition,
    )
