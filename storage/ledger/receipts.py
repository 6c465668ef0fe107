"""What providers say later about attempts: forward only, so late, repeated and out-of-order ones are harmless."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postern.model import ErrorCode, MessageStatus
from postern.sms.clocks import FIRST_LOOK
from postern.sms.statuses import FINAL, accepts
from storage.database import Database
from storage.ledger.moving import move_message
from storage.tables import attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a provider says later about an attempt."""

    attempt_id: str
    status: MessageStatus
    external_id: str = ""
    error_code: ErrorCode | None = None
    error_note: str | None = None


def apply_receipts(database: Database, receipts: Sequence[Receipt], *, now: datetime) -> int:
    """Move attempts on by what the provider reports; late, repeated and out-of-order receipts change nothing.

    Returns:
        how many attempts moved.
    """
    moved = 0
    with database.write() as connection:
        for receipt in receipts:
            moved += _apply(connection, receipt, now)
    return moved


def _apply(connection: sa.Connection, receipt: Receipt, now: datetime) -> bool:
    current = connection.execute(
        sa.select(attempts.c.status, attempts.c.inferred, attempts.c.batch, attempts.c.row, attempts.c.number)
        .where(attempts.c.id == receipt.attempt_id)
        .with_for_update()
    ).first()
    if current is None or not accepts(MessageStatus(current.status), receipt.status, inferred=current.inferred):
        return False
    values: dict[str, object] = {
        "status": receipt.status.value,
        "error_type": receipt.error_code.type.value if receipt.error_code else None,
        "error_code": receipt.error_code.value if receipt.error_code else None,
        "error_note": receipt.error_note,
        "inferred": False,
        "sent_at": sa.func.coalesce(attempts.c.sent_at, attempts.c.created_at),  # a doubt that a receipt settles
        "due_at": None if receipt.status in FINAL else _due_at(now),
        "updated_at": now,
    }
    if receipt.external_id:
        values["external_id"] = receipt.external_id
    if receipt.status is MessageStatus.SUCCESS:
        values["delivered_at"] = now
    connection.execute(attempts.update().where(attempts.c.id == receipt.attempt_id).values(**values))
    move_message(connection, current, receipt.status, now)
    return True


def _due_at(now: datetime) -> sa.ColumnElement[datetime | None]:
    """When somebody looks for the final report, which is not this one, where that was not set before."""
    return sa.func.coalesce(attempts.c.due_at, sa.literal(now + FIRST_LOOK, attempts.c.due_at.type))
