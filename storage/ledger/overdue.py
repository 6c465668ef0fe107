"""Attempts that the provider took and of which no final report came: looked at now and then, expired in the end.

Each has a time when it is looked at next (`due_at`), and an index of those times, so that a look costs what is due
and not what there is. Who takes some moves their times on in the same transaction: no other worker takes them
meanwhile, and if this one dies, they are due again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from postern.model import ErrorCode, MessageStatus
from postern.sms.clocks import LOCAL_EXPIRES, SENT_EXPIRES
from storage.database import Database
from storage.ledger.message_ids import message_id_of
from storage.ledger.moving import move_message
from storage.tables import attempts, batches, messages

_OPEN = (MessageStatus.SENT, MessageStatus.SENT_TO_TELCO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An attempt without a final report that it is time to look at."""

    attempt_id: str
    message_id: str
    batch_id: str
    campaign_id: str
    recipient: str
    language: str
    parameters: str  # JSON object
    provider: str
    external_id: str
    status: MessageStatus
    claimed_at: datetime
    handed_over: datetime
    updated_at: datetime  # when it came into its status


def take_due(database: Database, *, most: int, lease: timedelta, now: datetime) -> list[Overdue]:
    """The attempts that are due, the longest due first; no other worker gets them before the lease is over."""
    due = sa.select(attempts.c.id).where(attempts.c.due_at.is_not(None), attempts.c.due_at <= now)
    due = due.order_by(attempts.c.due_at).limit(most).with_for_update(skip_locked=True)
    with database.write() as connection:
        ids = list(connection.execute(due).scalars())
        if not ids:
            return []
        connection.execute(attempts.update().where(attempts.c.id.in_(ids)).values(due_at=now + lease))
        found = connection.execute(_details().where(attempts.c.id.in_(ids))).mappings().all()
    return [_overdue(row) for row in found]


def look_again(database: Database, times: Mapping[str, datetime | None]) -> None:
    """Set when attempts, by their ids, are looked at next; None: nobody need. One with its final report stays."""
    is_expired = sa.and_(attempts.c.status == MessageStatus.FAILURE.value, attempts.c.inferred)
    still_open = sa.or_(attempts.c.status.in_([status.value for status in _OPEN]), is_expired)
    with database.write() as connection:
        for attempt_id, due_at in sorted(times.items()):
            connection.execute(attempts.update().where(attempts.c.id == attempt_id, still_open).values(due_at=due_at))


def expire(database: Database, overdue: Mapping[Overdue, datetime | None], *, now: datetime) -> int:
    """sent or sent_to_telco → failure, `message_expired`: our own conclusion, which a final report overrides.

    One that has moved on since it was taken stays.

    Args:
        database: the database.
        overdue: the attempts, and when each is asked about all the same; None: never again.
        now: the time.

    Returns:
        how many expired.
    """
    count = 0
    with database.write() as connection:
        for one, due_at in sorted(overdue.items(), key=lambda pair: pair[0].attempt_id):
            gone = connection.execute(
                attempts.update()
                .where(attempts.c.id == one.attempt_id, attempts.c.status == one.status.value)
                .values(
                    status=MessageStatus.FAILURE.value,
                    error_type=ErrorCode.MESSAGE_EXPIRED.type.value,
                    error_code=ErrorCode.MESSAGE_EXPIRED.value,
                    error_note=_note(one.status),
                    inferred=True,
                    due_at=due_at,
                    updated_at=now,
                )
                .returning(attempts.c.batch, attempts.c.row, attempts.c.number)
            ).first()
            if gone is not None:
                move_message(connection, gone, MessageStatus.FAILURE, now)
                count += 1
    return count


def _details() -> sa.Select[*tuple[object, ...]]:
    return (
        sa.select(
            attempts.c.id.label("attempt_id"),
            attempts.c.row,
            attempts.c.provider,
            attempts.c.external_id,
            attempts.c.status,
            attempts.c.created_at.label("claimed_at"),
            attempts.c.updated_at,
            sa.func.coalesce(attempts.c.sent_at, attempts.c.created_at, type_=attempts.c.created_at.type).label(
                "handed_over"
            ),
            messages.c.recipient,
            messages.c.language,
            messages.c["values"].label("parameters"),
            batches.c.id.label("batch_id"),
            batches.c.campaign_id,
        )
        .join(messages, sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row))
        .join(batches, batches.c.number == attempts.c.batch)
        .order_by(attempts.c.batch, attempts.c.row)
    )


def _overdue(row: sa.RowMapping) -> Overdue:
    fields = {name: value for name, value in row.items() if name not in {"row", "status"}}
    message_id = message_id_of(row["batch_id"], row["row"])
    return Overdue(**fields, message_id=message_id, status=MessageStatus(row["status"]))


def _note(status: MessageStatus) -> str:
    limit = SENT_EXPIRES if status is MessageStatus.SENT else LOCAL_EXPIRES
    hours = int(limit.total_seconds() // 3600)
    return (
        f"No final report came within {hours} hours of the hand-over. Nobody knows whether it was delivered; retrying "
        "may deliver it twice."
    )
