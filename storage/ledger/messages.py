"""Messages and their attempts, to be looked at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import ErrorCode, IdKind, MessageStatus, is_id
from storage.database import Database
from storage.ledger.message_ids import head_of, message_id_of, rows_with_head
from storage.lists import at_rows, these_rows
from storage.tables import attempts, batches, message_ids, messages

_ROWS_AT_ONCE = 10_000  # in one query; PostgreSQL takes 65,535 parameters
_CREATED_AT = sa.func.coalesce(messages.c.created_at, batches.c.created_at)
_WITH_BATCH = sa.select(
    *(column for column in messages.c if column.name not in ("batch", "created_at", "updated_at")),
    batches.c.id.label("batch_id"),
    batches.c.campaign_id,
    _CREATED_AT.label("created_at"),
    sa.func.coalesce(messages.c.updated_at, _CREATED_AT).label("updated_at"),
).join(batches, batches.c.number == messages.c.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at handing a message to a provider."""

    id: str
    number: int
    status: MessageStatus
    provider: str
    external_id: str
    error_code: ErrorCode | None
    error_note: str | None
    inferred: bool
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One row of a batch, with its attempts, oldest first."""

    id: str
    batch_id: str
    row: int
    campaign_id: str
    recipient: str
    language: str
    values: Mapping[str, str]
    latest_status: MessageStatus
    num_attempts: int
    segments: int
    created_at: datetime
    updated_at: datetime
    attempts: Sequence[Attempt] = field(default=())


def get_message(database: Database, message_id: str) -> Message:
    """A message with its attempts.

    Raises:
        NotFoundError: there is none with that id.
    """
    if not is_id(IdKind.MESSAGE, message_id):
        raise NotFoundError("message", message_id)
    with database.read() as connection:
        for batch_id, row in _places(connection, head_of(message_id)):
            if message_id_of(batch_id, row) == message_id:
                query = _WITH_BATCH.where(batches.c.id == batch_id, messages.c.row == row)
                if found := _with_attempts(connection, batch_id, connection.execute(query).mappings().all()):
                    return found[0]
    raise NotFoundError("message", message_id)


def _places(connection: sa.Connection, head: int) -> Iterator[tuple[str, int]]:
    """Batch and row of messages whose ids have that head; first where an index tells, then where none does yet."""
    indexed = (
        sa.select(batches.c.id, message_ids.c.row)
        .join(message_ids, message_ids.c.batch == batches.c.number)
        .where(message_ids.c.head == head, message_ids.c.batch.in_(sa.select(batches.c.number)))
    )  # the last condition says nothing new; without it SQLite reads the whole index
    for batch_id, row in connection.execute(indexed).all():
        yield batch_id, row
    others = sa.select(batches.c.id, batches.c.first_row, batches.c.last_row).where(batches.c.is_indexed.is_(False))
    for batch_id, first_row, last_row in connection.execute(others).all():
        for row in rows_with_head(batch_id, range(first_row, last_row + 1), head):
            yield batch_id, row


def list_messages(
    database: Database, *, batch_id: str, status: MessageStatus | None = None, after_row: int = 0, limit: int = 100
) -> list[Message]:
    """Messages of a batch in the order of their rows, with their attempts."""
    query = _WITH_BATCH.where(batches.c.id == batch_id, messages.c.row > after_row)
    query = query.order_by(messages.c.row).limit(limit)
    if status is not None:
        query = query.where(messages.c.latest_status == status.value)
    with database.read() as connection:
        return _with_attempts(connection, batch_id, connection.execute(query).mappings().all())


def _with_attempts(connection: sa.Connection, batch_id: str, rows: Sequence[sa.RowMapping]) -> list[Message]:
    found: dict[int, list[Attempt]] = {}
    query = (
        sa.select(attempts)
        .join(batches, batches.c.number == attempts.c.batch)
        .where(batches.c.id == batch_id, at_rows(connection.dialect.name, attempts.c.row))
        .order_by(attempts.c.number)
    )
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = [row["row"] for row in rows[first : first + _ROWS_AT_ONCE]]
        for row in connection.execute(query, these_rows(connection, part)).mappings():
            found.setdefault(row["row"], []).append(_attempt(row))
    return [
        Message(
            **{
                **row,
                "id": message_id_of(batch_id, row["row"]),
                "values": json.loads(row["values"]),
                "latest_status": MessageStatus(row["latest_status"]),
                "attempts": tuple(found.get(row["row"], ())),
            }
        )
        for row in rows
    ]


def _attempt(row: sa.RowMapping) -> Attempt:
    return Attempt(
        id=row["id"],
        number=row["number"],
        status=MessageStatus(row["status"]),
        provider=row["provider"],
        external_id=row["external_id"],
        error_code=ErrorCode(row["error_code"]) if row["error_code"] else None,
        error_note=row["error_note"],
        inferred=row["inferred"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        delivered_at=row["delivered_at"],
        updated_at=row["updated_at"],
    )
