"""A claim's attempts are found by their place: no index of claims, which every hand-over wrote to."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_attempts_claim", "attempts")
