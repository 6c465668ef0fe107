"""Messages stand by the number of their batch and their row; a table of its own finds them by id.

What is there is kept. The ids of messages shrink to their 16 bytes, and each attempt knows where its message stands.
"""

import sqlite3
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("number", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE batches SET number = numbered.n FROM "
        "(SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM batches) AS numbered "
        "WHERE numbered.id = batches.id"
    )
    _set_the_old_messages_aside()
    _make_messages()
    _copy_messages()
    _place_attempts()
    op.drop_table("old_messages")
    with op.batch_alter_table("batches") as batches:
        batches.alter_column("number", existing_type=sa.Integer(), nullable=False)
        batches.create_unique_constraint(op.f("uq_batches_number"), ["number"])


def _set_the_old_messages_aside() -> None:
    if op.get_bind().execute(sa.text("SELECT count(*) FROM messages WHERE batch_id IS NULL")).scalar_one():
        raise RuntimeError("There are messages without a batch, which no version of Postern has made.")
    op.rename_table("messages", "old_messages")
    if op.get_bind().dialect.name != "sqlite":  # where the names of keys are those of indexes, and must be free
        for name in ("pk_messages", "uq_messages_batch_id_row"):
            op.execute(f"ALTER TABLE old_messages RENAME CONSTRAINT {name} TO old_{name}")


def _make_messages() -> None:
    message_id: sa.types.TypeEngine[Any] = sa.LargeBinary(16) if op.get_bind().dialect.name == "sqlite" else sa.Uuid()
    op.create_table(
        "messages",
        sa.Column("batch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", message_id, nullable=False),
        sa.Column("recipient", sa.String(length=32), nullable=False),
        sa.Column("language", sa.String(length=16), nullable=False),
        sa.Column("values", sa.Text(), nullable=False),
        sa.Column("latest_status", sa.String(length=16), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("segments", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch", "row", name=op.f("pk_messages")),
    )
    op.create_table(
        "message_ids",
        sa.Column("batch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("head", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("batch", "head", "row", name=op.f("pk_message_ids")),
        sqlite_with_rowid=False,
    )


def _copy_messages() -> None:
    if op.get_bind().dialect.name == "sqlite":
        driver: sqlite3.Connection = op.get_bind().connection.driver_connection  # type: ignore[assignment]
        driver.create_function("uuid_of", 1, lambda text: UUID(text.rpartition("_")[2]).bytes, deterministic=True)
        driver.create_function("head_of", 1, lambda raw: int.from_bytes(raw[:8], "big") - (1 << 63), deterministic=True)
        uuid_of, head_of = "uuid_of(m.id)", "head_of(id)"
    else:
        uuid_of = "substr(m.id, length('message_') + 1)::uuid"
        head_of = "('x' || substr(replace(id::text, '-', ''), 1, 16))::bit(64)::bigint # (1::bigint << 63)"
    kept = 'recipient, language, "values", latest_status, num_attempts, segments'
    op.execute(
        f'INSERT INTO messages (batch, "row", id, {kept}, created_at, updated_at) '  # noqa: S608 - names of ours
        f'SELECT b.number, m."row", {uuid_of}, {kept}, m.created_at, m.updated_at '
        'FROM old_messages m JOIN batches b ON b.id = m.batch_id ORDER BY b.number, m."row"'
    )
    op.execute(f'INSERT INTO message_ids SELECT batch, {head_of}, "row" FROM messages ORDER BY 1, 2, 3')  # noqa: S608


def _place_attempts() -> None:
    op.add_column("attempts", sa.Column("batch", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("row", sa.Integer(), nullable=True))
    op.execute(
        'UPDATE attempts SET batch = b.number, "row" = m."row" '
        "FROM old_messages m JOIN batches b ON b.id = m.batch_id WHERE m.id = attempts.message_id"
    )
    with op.batch_alter_table("attempts") as attempts:
        attempts.alter_column("batch", existing_type=sa.Integer(), nullable=False)
        attempts.alter_column("row", existing_type=sa.Integer(), nullable=False)
