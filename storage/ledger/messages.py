"""Messages and their attempts, to be looked at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import ErrorCode, IdKind, MessageStatus, is_id
from storage.database import Database
from storage.ledger.message_ids import head_of
from storage.tables import attempts, batches, message_ids, messages

_WITH_BATCH = sa.select(
    *(column for column in messages.c if column is not messages.c.batch),
    batches.c.id.label("batch_id"),
    batches.c.campaign_id,
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
    place = sa.and_(message_ids.c.batch == messages.c.batch, message_ids.c.row == messages.c.row)
    query = _WITH_BATCH.join(message_ids, sa.and_(place, message_ids.c.batch == batches.c.number)).where(
        message_ids.c.head == head_of(message_id), messages.c.id == message_id
    )
    with database.read() as connection:
        row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError("message", message_id)
        return _with_attempts(connection, [row])[0]


def list_messages(
    database: Database, *, batch_id: str, status: MessageStatus | None = None, after_row: int = 0, limit: int = 100
) -> list[Message]:
    """Messages of a batch in the order of their rows, with their attempts."""
    query = _WITH_BATCH.where(batches.c.id == batch_id, messages.c.row > after_row)
    query = query.order_by(messages.c.row).limit(limit)
    if status is not None:
        query = query.where(messages.c.latest_status == status.value)
    with database.read() as connection:
        return _with_attempts(connection, list(connection.execute(query).mappings()))


def _with_attempts(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[Message]:
    ids = [row["id"] for row in rows]
    found: dict[str, list[Attempt]] = {}
    query = sa.select(attempts).where(attempts.c.message_id.in_(ids)).order_by(attempts.c.number)
    for row in connection.execute(query).mappings():
        found.setdefault(row["message_id"], []).append(_attempt(row))
    return [
        Message(
            **{
                **row,
                "values": json.loads(row["values"]),
                "latest_status": MessageStatus(row["latest_status"]),
                "attempts": tuple(found.get(row["id"], ())),
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
